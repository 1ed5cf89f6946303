# Started with other rules: what changes for that reason is no older than the start.
10:00 a heartbeat                     | online heartbeat-only
10:20 * wait                          | online heartbeat-only
10:20 * restart default=1s            | offline none since=10:20 cause=rules-changed
10:25 a heartbeat                     | online heartbeat-only since=10:25
