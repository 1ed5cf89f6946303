# A device that polls once a day: its heartbeat is written before it leaves the
# window that a restart replays.
10:00 a heartbeat interval=1d         | online heartbeat-only
1d+10:00 a heartbeat interval=1d      | online heartbeat-only changes=0
1d+12:00 * restart                    | online heartbeat-only since=10:00 changes=0
2d+21:00 * restart                    | online heartbeat-only since=10:00 changes=0
2d+22:00:15 * wait                    | offline none since=2d+22:00:15
