# A device known by heartbeats alone: online, then the grace, then offline.
10:00     a heartbeat interval=15m | online heartbeat-only since=10:00 links=10:00 version=1 cause=heartbeat
10:15     a heartbeat interval=15m | online heartbeat-only since=10:00 changes=0
# One poll and a half later the grace begins; it still counts where the VPN is down.
10:37:29  * wait                   | online heartbeat-only heartbeat=online
10:37:30  * wait                   | online heartbeat-only heartbeat=timeout changes=0
10:37:44.999 * wait                | online heartbeat-only
10:37:45  * wait                   | offline none since=10:37:45 links=10:37:45 heartbeat=offline cause=heartbeat-expired
11:00     a heartbeat interval=15m | online heartbeat-only since=11:00 version=3
