# A device moves from one fleet or organization to another.

== From a frozen fleet to a free one, and back
10:00 * fleet-frozen f
10:00 a registered f       | frozen none since=10:00
10:05 a moved g            | configuring none since=10:05 cause=moved fleet=g
10:10 a moved f            | frozen none since=10:10 cause=moved fleet=f

== From a frozen organization to a free one, and back
10:00 * organization-frozen o
10:00 a registered f org=o  | frozen none since=10:00
10:05 a moved f org=p       | configuring none since=10:05 cause=moved
10:10 a moved f org=o       | frozen none since=10:10 cause=moved

== From one frozen fleet to another changes nothing
10:00 * fleet-frozen f
10:00 * fleet-frozen g
10:01 a registered f        | frozen none since=10:01
10:05 a moved g             | frozen none since=10:01 changes=1 cause=moved
10:06 * fleet-unfrozen f    | frozen none changes=0
10:07 * fleet-unfrozen g    | configuring none since=10:07

== From a frozen fleet of a free organization to a free fleet of a frozen one
10:00 * fleet-frozen f
10:00 * organization-frozen p
10:01 a registered f org=o  | frozen none since=10:01
10:02 a moved g org=p       | frozen none changes=1 fleet=g cause=moved
10:03 * fleet-unfrozen f    | frozen none changes=0
10:04 * organization-unfrozen p | configuring none since=10:04

== Out of every fleet
10:00 * fleet-frozen f
10:00 a registered f        | frozen none
10:05 a moved               | configuring none since=10:05 cause=moved fleet=-

== The device's own freeze moves with it
10:00 a registered f
10:01 a frozen              | frozen none since=10:01
10:02 a moved g             | frozen none since=10:01 changes=1 cause=moved

== Into a fleet that was frozen after the move
# The move is told late: frozen since the freeze, not since the move.
10:00 a registered f
10:05 * fleet-frozen g
10:10 a moved g at=10:03    | frozen none since=10:05 cause=frozen

== Into a fleet with another interval
10:00    * fleet-settings g interval=1h
10:00    a registered f
10:00    a heartbeat
10:20    a moved g          | online heartbeat-only changes=1 cause=moved
10:22:45 * wait             | online heartbeat-only changes=0
11:30:15 * wait             | offline none since=11:30:15

== Into a fleet with a shorter interval: it counts from the next poll on
10:00    * fleet-settings f interval=1h
10:00    a registered f
10:00    a heartbeat
10:30    a moved g          | online heartbeat-only
11:00    a heartbeat        | online heartbeat-only
11:22:45 * wait             | offline none since=11:22:45

== Moved, and a poll from before the move is told late, over a restart
09:00    * fleet-settings f interval=2h
09:00    * fleet-settings g interval=10m
09:00    a registered f
10:00    a heartbeat
10:30    a moved g
10:31    a heartbeat at=10:20 | online heartbeat-only last=10:20
10:32    * restart          | online heartbeat-only changes=0
13:20:14 * wait             | online heartbeat-only
13:20:15 * wait             | offline none since=13:20:15

== The move of the time is told after the poll
09:00    * fleet-settings f interval=2h
09:00    * fleet-settings g interval=10m
09:00    a registered f
10:00    a heartbeat        | online heartbeat-only
10:10    a moved g at=09:30 | online heartbeat-only
10:15:15 * wait             | offline none since=10:15:15

== Into a fleet whose VPN is disabled
10:00    * fleet-settings g vpn=off
10:00    a registered f
10:00    a heartbeat        | online heartbeat-only
10:05    a moved g          | online full links=10:05 since=10:00 cause=moved
10:06    a moved f          | online heartbeat-only links=10:06

== An older move after a newer one says nothing
10:00 * fleet-frozen f
10:00 a registered g
10:10 a moved h at=10:08    | changes=1
10:11 a moved f at=10:05    | configuring none changes=0 fleet=h

== A registration moves as well, and a later move goes before it
10:00 a moved g at=10:05    | -
10:10 a registered f at=10:06 | configuring none fleet=f
10:11 a moved g at=10:07    | configuring none fleet=g changes=1 cause=moved
10:12 a registered f at=10:03 | configuring none fleet=g

== Two moves in one batch: the later in the log
10:00 a registered f
10:01 a moved g
10:01 a moved h             | fleet=h
10:02 b registered f
10:03 b moved h
10:03 b moved g             | b: fleet=g
# The batch once more ends as it did.
10:04 b moved h at=10:03
10:04 b moved g at=10:03    | b: fleet=g
10:05 b moved g at=10:03    | b: fleet=g changes=0

== Registered and moved in one batch
10:00 a registered f
10:00 a moved g             | configuring none fleet=g
10:01 b moved g
10:01 b registered f        | b: configuring none fleet=f

== A fleet's events reach those that moved in, and not those that moved out
10:00 a registered f
10:00 b registered g
10:01 a moved g
10:01 b moved f
10:02 * fleet-frozen f      | a: configuring none changes=0 ; b: frozen none since=10:02

== Out of a frozen fleet, told late: no earlier than the freeze that was shown
10:00 a registered f
10:05 * fleet-frozen f      | frozen none since=10:05
10:10 a moved g at=10:04    | configuring none since=10:05

== Into a frozen fleet and out again, both told late
10:00 * fleet-frozen f
10:00 a registered g
10:10 a moved f at=10:05    | frozen none since=10:05
10:11 a moved g at=10:07    | configuring none since=10:07

== A move that changes no status is told, and dates nothing else
10:00 a registered f org=o    | configuring none version=1 moved=-/-,f/o member=10:00
10:01 a heartbeat interval=1d | online heartbeat-only version=2 moved=f/o,f/o member=10:00
10:05 a moved g org=o         | online heartbeat-only version=3 since=10:01 links=10:01 cause=moved moved=f/o,g/o member=10:05
10:06 a moved g org=p         | version=4 since=10:01 cause=moved moved=g/o,g/p member=10:06
10:07 a moved g org=p         | changes=0 member=10:06
10:08 * restart               | changes=0 member=10:06
10:09 a moved                 | version=5 moved=g/p,-/- member=10:09

== A registration that moves, and one that does not
10:00    a heartbeat interval=1d | online heartbeat-only version=1 member=10:00 moved=-/-,-/-
10:05    a registered f org=o | version=2 since=10:00 cause=moved moved=-/-,f/o member=10:05
1d+02:00 a registered f org=o | changes=0 member=10:05
1d+03:00 a registered g org=o | changes=1 cause=moved moved=f/o,g/o member=1d+03:00

== A move that changes the status too: one change, and the status has the cause
10:00 * fleet-frozen g
10:00 a registered f          | configuring none
10:05 a moved g               | frozen none version=2 since=10:05 cause=moved moved=f/-,g/- member=10:05
10:06 * fleet-unfrozen g      | configuring none version=3 moved=g/-,g/-

== A registration that moves and preregisters
10:00 a registered f
10:01 a preregistered g       | inactive none changes=1 cause=registered moved=f/-,g/- member=10:01

== A deletion names what it ends
10:00 a registered f org=o
10:05 a moved g org=o
10:06 a deleted               | - emits=deleted moved=g/o,g/o
10:07 a moved h               | - changes=0
10:08 a registered k          | configuring none version=4 moved=-/-,k/- member=10:08

== A late move dates no earlier than the one that was told
10:00 a registered f
10:10 a moved g               | member=10:10
10:11 a moved h at=10:05      | changes=0 member=10:10
10:20 a moved h at=10:15      | changes=1 member=10:15
10:21 a moved k at=10:16      | changes=1 member=10:16
10:22 b heartbeat interval=1d | b: online heartbeat-only member=10:22
10:23 b registered f at=09:00 | b: online heartbeat-only changes=1 member=10:22

== Moved while it is offline, frozen or silent
10:00    a registered f
10:00    a heartbeat
10:30    * wait               | offline none since=10:22:45
10:31    a moved g            | offline none since=10:22:45 links=10:22:45 changes=1 cause=moved
10:32    a frozen             | frozen none changes=1
10:33    a moved f            | frozen none since=10:32 changes=1 cause=moved

== Moved in the millisecond of a deadline
10:00    a registered f
10:00    a heartbeat
10:22:45 a moved g            | offline none emits=offline/none,offline/none moved=f/-,g/-
