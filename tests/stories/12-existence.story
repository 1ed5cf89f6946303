# Settings and freezes of a device not heard of wait in silence.
10:00 a frozen           | - changes=0
10:01 a settings vpn=off | - changes=0
10:02 a moved f          | - changes=0
10:05 a registered f     | frozen none since=10:05 cause=registered version=1
10:06 a unfrozen         | configuring none since=10:06
# What made the difference was known before, and is later than the event.
10:10 b frozen
10:11 b registered f at=10:09 | b: frozen none since=10:10 cause=frozen changes=1
