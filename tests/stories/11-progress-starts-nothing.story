# A percentage never starts anything; a start that is older than the finish
# known is over.
10:00 a heartbeat interval=1h
10:01 a update-progressed 50             | online heartbeat-only progress=- changes=0
10:02 a update-finished
10:03 a update-started r1 at=10:01:30    | online heartbeat-only progress=- changes=0
10:04 a update-started r2                | updating heartbeat-only progress=- since=10:04
10:05 a update-finished at=10:04         | online heartbeat-only since=10:04
