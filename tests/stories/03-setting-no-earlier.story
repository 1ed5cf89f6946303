# A change caused by a setting is no older than the setting.
10:00 a registered f
10:00 a settings interval=2h
10:00 a heartbeat            | online heartbeat-only
11:00 a settings interval=10m | offline none since=11:00 cause=settings-changed
11:10 a settings interval=2h | online heartbeat-only since=11:10 cause=settings-changed
# The same from the fleet.
11:20 a settings             | offline none since=11:20
11:30 * fleet-settings f interval=3h | online heartbeat-only since=11:30 cause=settings-changed
