# qmp.pl SOCKET COMMAND...: wait for QMP to answer, then run the commands in order.
use strict; use Socket;
my ($path, @commands) = @ARGV;
my ($text, $patience) = ("", 6000);
socket(my $qmp, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
until (connect($qmp, pack_sockaddr_un($path))) {
    die "$path does not answer: $!\n" unless $patience--;
    select(undef, undef, undef, 0.005);
}
sub answer {
    while (1) {
        while ($text =~ s/^(.*)\n//) {
            return if $1 =~ /^\{"(QMP|return)"/;
            die "$path: $1\n" if $1 =~ /^\{"error"/;
        }
        sysread($qmp, $text, 65536, length $text) or die "$path: closed\n";
    }
}
answer();
for (map { "{\"execute\":\"$_\"}" } "qmp_capabilities") { syswrite($qmp, "$_\n"); answer() }
for (@commands) { syswrite($qmp, "$_\n"); answer() }
