#!/bin/busybox sh
# What udhcpc calls with a lease (variables: ip, mask, router, dns).
case $1 in
  deconfig) ip address flush dev "$interface" ;;
  bound | renew)
    ip address flush dev "$interface"
    ip address add "$ip/${mask:-24}" dev "$interface"
    for gateway in $router; do ip route add default via "$gateway" dev "$interface"; done
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    ;;
esac
