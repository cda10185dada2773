#!/bin/sh
# What udhcpc asks to be done with a card.
case $1 in
deconfig)
    # What the designer of a lab has set on the card by hand stays.
    [ -e "/run/lease.$interface" ] && ip addr del "$(cat "/run/lease.$interface")" dev "$interface" 2>/dev/null
    rm -f "/run/lease.$interface"
    ;;
bound | renew)
    ip addr replace "$ip/${mask:-24}" dev "$interface"
    echo "$ip/${mask:-24}" > "/run/lease.$interface"
    # The first card's router wins where several have one.
    if [ -n "$router" ]; then
        ip route replace default via "${router%% *}" dev "$interface" metric $((10 + ${interface#eth}))
    fi
    if [ -n "$dns" ]; then
        : > /etc/resolv.conf
        for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
    fi
    if [ -n "$hostname" ]; then hostname "$hostname"; fi
    ;;
esac
