# Preregistered or deactivated: Inactive until contact or activation.
10:00 a preregistered f      | inactive none since=10:00 cause=registered
10:10 a heartbeat interval=15m | online heartbeat-only since=10:10
10:20 a deactivated          | inactive heartbeat-only since=10:20 cause=deactivated
# Registering again does not undo it.
10:21 a registered f         | inactive heartbeat-only changes=0
10:22 a activated            | online heartbeat-only since=10:22 cause=activated
10:23 a deactivated          | inactive heartbeat-only
# Contact in the same millisecond counts.
10:24 a vpn-opened v1 s1 at=10:23 | online full
