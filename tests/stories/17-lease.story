# A lease that runs out takes the sessions down at its very end; a later
# announcement of the same start brings them back.
10:00 * instance-alive v1 lease=1m started=09:00
10:00:10 a vpn-opened v1 s1       | online vpn-only
10:00:30 * instance-alive v1 lease=1m started=09:00
10:01:29 * wait                   | online vpn-only changes=0
10:01:40 * wait                   | offline none since=10:01:30 cause=vpn-lease-expired
10:02 * instance-alive v1 lease=1m started=09:00 | online vpn-only since=10:02 cause=vpn-instance-alive
10:02:30 a vpn-closed v1 s1       | offline none since=10:02:30
