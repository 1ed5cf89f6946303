# A new start ends the sessions of the old one.
10:00 * instance-alive v1 lease=1h started=09:00
10:01 a vpn-opened v1 s1       | online vpn-only
10:10 * instance-alive v1 lease=1h started=10:08 | offline none since=10:08 cause=vpn-instance-lost
10:11 a vpn-opened v1 s2       | online vpn-only
# A late announcement of the old start says nothing.
10:12 * instance-alive v1 lease=1s started=09:00
10:20 * wait                   | online vpn-only changes=0
