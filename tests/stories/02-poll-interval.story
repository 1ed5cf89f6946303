# A heartbeat is judged by the interval it carries, else by the device's
# setting, else by the fleet's, else by the default.
10:00 a registered f       | configuring none
10:00 a heartbeat          | online heartbeat-only
10:22:45 * wait            | offline none since=10:22:45
11:00 * fleet-settings f interval=1h
11:00 a heartbeat          | online heartbeat-only
12:30 * wait               | online heartbeat-only heartbeat=timeout
12:30:15 * wait            | offline none since=12:30:15
13:00 a settings interval=20m
13:00 a heartbeat          | online heartbeat-only
13:30:15 * wait            | offline none since=13:30:15
14:00 a heartbeat interval=2h | online heartbeat-only
17:00:15 * wait            | offline none since=17:00:15
# Shorter than the minimum is taken for the minimum of ten minutes.
18:00 a heartbeat interval=1s | online heartbeat-only
18:15:15 * wait            | offline none since=18:15:15
