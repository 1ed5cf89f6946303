# Both links, either, none.
10:00 a heartbeat interval=15m  | online heartbeat-only
10:05 a vpn-opened v1 s1        | online full since=10:00 links=10:05 cause=vpn-opened
# The timeout counts as missing where the VPN is up.
10:22:30 * wait                 | online vpn-only since=10:00 links=10:22:30 cause=heartbeat-timed-out
10:22:45 * wait                 | online vpn-only changes=0 heartbeat=offline
10:30 a heartbeat interval=15m  | online full links=10:30
10:40 a vpn-closed v1 s1        | online heartbeat-only links=10:40 cause=vpn-closed
10:50 a vpn-opened v1 s2        | online full
10:52:45 * wait                 | online vpn-only
11:00 a vpn-closed v1 s2        | offline none since=11:00 links=11:00 cause=vpn-closed
