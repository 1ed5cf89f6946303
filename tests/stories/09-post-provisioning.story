# Provisioned, and not online since.
10:00 a provisioned              | post-provisioning none since=10:00 cause=provisioned
10:05 a configuration-started    | post-provisioning none changes=0
10:10 a heartbeat interval=15m   | configuring heartbeat-only since=10:10
10:11 a configuration-finished   | online heartbeat-only since=10:11
10:15 a provisioned              | post-provisioning heartbeat-only since=10:15 links=10:10
10:16 a vpn-opened v1 s1         | online full since=10:16
