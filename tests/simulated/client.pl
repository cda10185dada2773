#!/usr/bin/perl
# A tool of a simulated host. It is called by the tool's name, hands its words and its stdin to the simulator, and does
# what comes back: print, end, or stay as a process of its own until the simulator closes the connection.
# One frame each way: words and stdin there; then type (one letter), length, text.
socket(S, 1, 1, 0) && connect(S, pack("S a*", 1, $ENV{SIMULATED_HOST}))
    or do { print STDERR "the simulated host is gone\n"; exit 255 };
($name) = $0 =~ m{([^/]+)$};
$stdin = -p STDIN || -f STDIN ? do { local $/; <STDIN> } : "";
$words = join("\0", $name, @ARGV);
send_all(pack("NN", length $words, length $stdin) . $words . $stdin);
while (1) {
    ($type, $size) = unpack("aN", read_all(5));
    $text = read_all($size);
    if ($type eq "O") { syswrite STDOUT, $text }
    elsif ($type eq "E") { syswrite STDERR, $text }
    elsif ($type eq "X") { exit $text }
    elsif ($type eq "S") { stay() }
    elsif ($type eq "D") { into_background() }
}

sub stay {    # SIGTERM and SIGHUP are the simulator's to answer; whatever it does not end, runs on
    $SIG{TERM} = sub { send_all("T") };
    $SIG{HUP}  = sub { send_all("H") };
    $SIG{INT}  = "IGNORE";
}

sub into_background {    # the child says its number; it reads on when its parent has ended
    pipe(HERE, THERE);
    if (fork) { close HERE; return }
    close THERE;
    close STDIN; close STDOUT; close STDERR;
    stay();
    send_all("P" . pack("N", $$));
    sysread HERE, $end, 1;
}

sub send_all {
    my ($data) = @_;
    while (length $data) {
        my $n = syswrite S, $data;
        if (defined $n) { substr($data, 0, $n) = "" }
        elsif ($! != 4) { exit 255 }
    }
}

sub read_all {
    my ($size) = @_;
    my $data = "";
    while (length $data < $size) {
        my $n = sysread S, $data, $size - length $data, length $data;
        exit 255 if defined $n ? $n == 0 : $! != 4;    # 4: a signal came in between
    }
    return $data;
}
