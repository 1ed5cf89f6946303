# Where the VPN is disabled by setting, the heartbeat alone is all there is.
10:00 a registered f
10:00 a heartbeat interval=15m     | online heartbeat-only
10:05 a settings vpn=off           | online full links=10:05 cause=settings-changed
10:22:30 * wait                    | online full heartbeat=timeout changes=0
10:22:45 * wait                    | offline none since=10:22:45
# A session that is open all the same is contact, and up.
10:30 a vpn-opened v1 s1           | online vpn-only since=10:30
10:31 a heartbeat interval=15m     | online full
10:32 a vpn-closed v1 s1           | online full changes=0
10:33 a settings vpn=on            | online heartbeat-only links=10:33
10:34 a settings                   | online heartbeat-only changes=0
10:35 * fleet-settings f vpn=off   | online full links=10:35
