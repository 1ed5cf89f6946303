# Registered by itself and not seen; then OS configuration; then an update.
10:00 a registered f                | configuring none since=10:00
10:01 a heartbeat interval=15m      | online heartbeat-only since=10:01
10:02 a configuration-started       | configuring heartbeat-only since=10:02 progress=-
10:03 a configuration-progressed 40 | configuring heartbeat-only progress=40 changes=0
10:04 a update-started r1           | configuring heartbeat-only progress=40 changes=0
10:05 a configuration-finished      | updating heartbeat-only since=10:05 progress=-
10:06 a update-progressed 10        | updating heartbeat-only progress=10 changes=0
# A percentage from before the start does not count.
10:07 a update-started r2           | updating heartbeat-only progress=- changes=0
10:08 a vpn-opened v1 s1            | updating full
# An update shows only while the API is polled; the timeout still does.
10:23:30 * wait                     | updating vpn-only
10:23:45 * wait                     | online vpn-only since=10:23:45 cause=heartbeat-expired
10:25 a heartbeat interval=15m      | updating full since=10:25
10:26 a update-finished             | online full since=10:26 cause=update-finished
