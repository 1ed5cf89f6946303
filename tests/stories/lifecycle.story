# From the registration to the first contact, and out of service and back.

== Registered by itself and not seen yet
10:00    a registered f              | configuring none since=10:00 links=10:00 cause=registered version=1 fleet=f
9d+10:00 * wait                      | configuring none changes=0

== First contact by heartbeat
10:00 a registered f              | configuring none
10:01 a heartbeat                 | online heartbeat-only since=10:01 links=10:01 cause=heartbeat

== First contact by VPN
10:00 a registered f              | configuring none
10:01 a vpn-opened v1 s1          | online vpn-only since=10:01 links=10:01 cause=vpn-opened heartbeat=unknown

== A device that was never registered and is heard of is an ordinary one
10:00 a heartbeat                 | online heartbeat-only since=10:00 fleet=-
10:00 b vpn-opened v1 s1          | online vpn-only since=10:00
10:01 b vpn-closed v1 s1          | offline none since=10:01 heartbeat=unknown

== Registered after the first contact
10:00 a heartbeat                 | online heartbeat-only since=10:00
10:01 a registered f              | online heartbeat-only since=10:00 changes=1 fleet=f cause=moved
10:22:45 * wait                   | offline none since=10:22:45

== Once it was seen, a device is offline and never configuring again by itself
10:00 a registered f
10:01 a vpn-opened v1 s1
10:02 a vpn-closed v1 s1          | offline none since=10:02

== Preregistered: inactive until the first heartbeat
10:00 a preregistered f           | inactive none since=10:00 cause=registered
10:10 a heartbeat interval=15m    | online heartbeat-only since=10:10 cause=heartbeat

== Preregistered: inactive until the first session
10:00 a preregistered f           | inactive none since=10:00
10:10 a vpn-opened v1 s1          | online vpn-only since=10:10 cause=vpn-opened

== Preregistered: inactive until it is activated
10:00 a preregistered f           | inactive none
10:10 a activated                 | configuring none since=10:10 cause=activated
10:20 a heartbeat                 | online heartbeat-only since=10:20

== Contact in the very millisecond of the preregistration counts
10:00 a preregistered f           | inactive none
10:00 a heartbeat                 | online heartbeat-only since=10:00

== Contact before the preregistration counts, whenever it was
10:00 a heartbeat at=09:59:59.999 | online heartbeat-only
10:00 a preregistered f           | online heartbeat-only since=09:59:59.999

== A registration takes a preregistration back
10:00 a preregistered f           | inactive none
10:01 a registered f              | configuring none since=10:01

== Of a registration and a preregistration in one batch the later in the log holds
10:00 a registered f
10:00 a preregistered f           | inactive none
10:00 b preregistered f
10:00 b registered f              | configuring none
# Sent again.
10:01 b preregistered f at=10:00  | b: configuring none changes=0
10:01 b registered f at=10:00     | b: configuring none changes=0

== Provisioned, and not online since
10:00 a provisioned              | post-provisioning none since=10:00 cause=provisioned
10:05 a configuration-started    | post-provisioning none changes=0
10:10 a heartbeat interval=15m   | configuring heartbeat-only since=10:10
10:11 a configuration-finished   | online heartbeat-only since=10:11
10:15 a provisioned              | post-provisioning heartbeat-only since=10:15 links=10:10
10:16 a vpn-opened v1 s1         | online full since=10:16

== Provisioned after it was registered, first contact by VPN
10:00 a registered f             | configuring none
10:01 a provisioned              | post-provisioning none since=10:01
10:02 a vpn-opened v1 s1         | online vpn-only since=10:02 links=10:02

== Contact in the very millisecond of the provisioning counts
10:00        a heartbeat
10:00        a provisioned        | online heartbeat-only changes=0
10:00:00.001 a provisioned        | post-provisioning heartbeat-only since=10:00:00.001
10:00:00.001 a heartbeat          | online heartbeat-only since=10:00:00.001

== Activation does not end post provisioning; contact does
10:00 a provisioned               | post-provisioning none
10:01 a activated                 | post-provisioning none changes=0
10:02 a heartbeat                 | online heartbeat-only

== A device that was provisioned again while its heartbeat runs out
# The links go on as they were, whatever the status.
10:00 a heartbeat
10:10 a provisioned               | post-provisioning heartbeat-only since=10:10
10:22:45 * wait                   | post-provisioning none since=10:10 links=10:22:45

== A provisioning that arrives after the contact that ended it
10:10 a heartbeat                 | online heartbeat-only
10:11 a provisioned at=10:05      | online heartbeat-only changes=0

== Preregistered and provisioned: inactive goes first
10:00 a preregistered f           | inactive none
10:01 a provisioned               | inactive none changes=0
10:02 a activated                 | post-provisioning none since=10:02
10:03 a heartbeat                 | online heartbeat-only since=10:03

== Deactivated until contact or activation
10:00 a preregistered f      | inactive none since=10:00 cause=registered
10:10 a heartbeat interval=15m | online heartbeat-only since=10:10
10:20 a deactivated          | inactive heartbeat-only since=10:20 cause=deactivated
# Registering again does not undo it.
10:21 a registered f         | inactive heartbeat-only changes=0
10:22 a activated            | online heartbeat-only since=10:22 cause=activated
10:23 a deactivated          | inactive heartbeat-only
# Contact in the same millisecond counts.
10:24 a vpn-opened v1 s1 at=10:23 | online full

== Deactivated, and back by a heartbeat
10:00 a heartbeat
10:05 a deactivated          | inactive heartbeat-only since=10:05 links=10:00
10:06 a heartbeat            | online heartbeat-only since=10:06 links=10:00

== Deactivated, and back by a session
10:00 a heartbeat
10:05 a deactivated          | inactive heartbeat-only
10:06 a vpn-opened v1 s1     | online full since=10:06 links=10:06

== A session that was open before the deactivation is no return
10:00 a vpn-opened v1 s1     | online vpn-only
10:05 a deactivated          | inactive vpn-only since=10:05
10:10 * wait                 | inactive vpn-only changes=0
10:11 a vpn-closed v1 s1     | inactive none since=10:05 links=10:11

== Deactivated, and its heartbeat runs out meanwhile
10:00    a heartbeat
10:05    a deactivated       | inactive heartbeat-only
10:22:45 * wait              | inactive none since=10:05 links=10:22:45
10:30    a activated         | offline none since=10:30 cause=activated

== Activation and deactivation, in either order of arrival
10:00 a heartbeat interval=1d
10:10 a activated at=10:06   | online heartbeat-only changes=0
10:11 a deactivated at=10:05 | online heartbeat-only changes=0
10:12 a deactivated at=10:07 | inactive heartbeat-only since=10:07
10:13 a activated at=10:08   | online heartbeat-only

== Activation and deactivation in one batch: the later in the log
10:00 a heartbeat interval=1d
10:05 a deactivated          | inactive heartbeat-only
10:05 a activated            | online heartbeat-only since=10:05
10:06 b heartbeat interval=1d
10:07 b activated
10:07 b deactivated          | b: inactive heartbeat-only since=10:07
# Sent again, over a restart.
10:08 * restart              | b: inactive heartbeat-only changes=0
10:08 b activated at=10:07   | b: inactive heartbeat-only changes=0
10:08 b deactivated at=10:07 | b: inactive heartbeat-only changes=0

== A deactivation that arrives after the contact that followed it
10:00 a heartbeat
10:10 a heartbeat
10:11 a deactivated at=10:05   | online heartbeat-only changes=0

== A deactivation that arrives before the contact that came before it
10:11 a deactivated at=10:05   | - changes=0
10:12 a heartbeat at=10:04     | inactive heartbeat-only since=10:05 cause=deactivated
10:13 a heartbeat at=10:06     | online heartbeat-only

== Deactivated without ever having been registered: silence, until it exists
10:00 a deactivated          | - changes=0
10:01 a registered f         | inactive none since=10:01 cause=registered
10:02 a heartbeat            | online heartbeat-only

== Deactivated twice
10:00 a heartbeat
10:05 a deactivated          | inactive heartbeat-only since=10:05
10:06 a deactivated          | inactive heartbeat-only since=10:05 changes=0

== Settings, freezes and moves of a device not heard of wait in silence
10:00 a frozen           | - changes=0
10:01 a settings vpn=off | - changes=0
10:02 a moved f          | - changes=0
10:05 a registered f     | frozen none since=10:05 cause=registered version=1
10:06 a unfrozen         | configuring none since=10:06
# What made the difference was known before, and is later than the event.
10:10 b frozen
10:11 b registered f at=10:09 | b: frozen none since=10:10 cause=frozen changes=1

== No event but contact, registration and provisioning makes a device exist
10:00 a activated                   | - changes=0
10:01 a configuration-started       | - changes=0
10:02 a configuration-progressed 10 | - changes=0
10:03 a configuration-finished      | - changes=0
10:04 a update-started r1           | - changes=0
10:05 a update-progressed 10        | - changes=0
10:06 a update-finished             | - changes=0
10:07 a unfrozen                    | - changes=0
10:08 a vpn-closed v1 s1            | - changes=0
10:09 a provisioned                 | post-provisioning none version=1

== Contact that is told late, when it is over, ends inactive and post provisioning
10:00 a preregistered f           | inactive none
10:00 b provisioned               | post-provisioning none
11:00 a heartbeat at=10:10        | a: offline none since=10:32:45 cause=heartbeat-expired changes=1
11:00 b heartbeat at=10:10        | b: offline none since=10:32:45 changes=1

== Preregistered, provisioned, deactivated and frozen all at once, undone one by one
10:00 a preregistered f
10:01 a provisioned
10:02 a deactivated
10:03 a frozen                    | frozen none since=10:03
10:04 a unfrozen                  | inactive none since=10:04 cause=unfrozen
10:05 a activated                 | post-provisioning none since=10:05 cause=activated
10:06 a deactivated               | inactive none since=10:06
10:07 a vpn-opened v1 s1          | online vpn-only since=10:07
10:08 a vpn-closed v1 s1          | offline none since=10:08

== A deactivation that is told when the device has polled since
10:00 a heartbeat
10:30 a heartbeat
10:31 a deactivated at=10:25      | online heartbeat-only changes=0

== An activation and an earlier contact, both told late
10:00 a preregistered f
10:20 a activated at=10:10        | configuring none since=10:10
10:21 a heartbeat at=10:05        | online heartbeat-only since=10:10

== A deactivation told when the heartbeat has run out: no earlier than what was shown
10:00 a heartbeat
10:30 a deactivated at=10:10      | inactive none since=10:22:45 emits=offline/none,inactive/none

== A nightly import that preregisters every device again
10:00    a preregistered f        | inactive none
10:10    a heartbeat interval=1d  | online heartbeat-only since=10:10
1d+02:00 a preregistered f        | online heartbeat-only changes=0
1d+10:10 a heartbeat interval=1d  | online heartbeat-only changes=0
2d+02:00 a preregistered f        | online heartbeat-only changes=0
2d+02:01 * restart                | online heartbeat-only changes=0
# It stopped polling: that is told, whatever the import says.
3d+02:00 a preregistered f        | offline none since=2d+22:10:15

== A nightly import of a device that is on the VPN alone
10:00    a preregistered f        | inactive none
10:10    a vpn-opened v1 s1       | online vpn-only since=10:10
1d+02:00 a preregistered f        | online vpn-only changes=0
1d+03:00 a vpn-closed v1 s1       | offline none since=1d+03:00
2d+02:00 a preregistered f        | offline none changes=0

== A nightly import of a device that was activated by hand
10:00    a preregistered f        | inactive none
10:10    a activated              | configuring none since=10:10
1d+02:00 a preregistered f        | configuring none changes=0
1d+08:00 a heartbeat interval=1d  | online heartbeat-only since=1d+08:00

== A nightly import of a device that was deactivated
10:00    a registered f
10:00    a heartbeat interval=1d  | online heartbeat-only
10:05    a deactivated            | inactive heartbeat-only since=10:05
1d+02:00 a registered f           | inactive heartbeat-only changes=0
1d+10:00 a heartbeat interval=1d  | online heartbeat-only since=1d+10:00
2d+02:00 a preregistered f        | online heartbeat-only changes=0

== Activated before the preregistration that is told late
10:00 a registered f              | configuring none
10:05 a activated                 | configuring none changes=0
10:06 a preregistered f at=10:04  | configuring none changes=0
10:07 a preregistered f           | configuring none changes=0

== Preregistered for the next owner: after the deletion, contact of before does not count
10:00 a preregistered f           | inactive none
10:01 a heartbeat interval=1d     | online heartbeat-only
10:05 a deleted                   | - emits=deleted
10:06 a preregistered f           | inactive none since=10:06
10:07 a preregistered f           | inactive none changes=0
10:08 a heartbeat interval=1d at=10:04 | inactive none changes=0
10:09 a heartbeat interval=1d     | online heartbeat-only since=10:09

== Deactivated, and the contact that ended it came in the very millisecond
10:00        a heartbeat interval=1d
10:05        a deactivated        | inactive heartbeat-only
10:05        a heartbeat interval=1d | online heartbeat-only since=10:05
10:05:00.001 a deactivated        | inactive heartbeat-only since=10:05:00.001

== A nightly import that comes late, after the first contact
10:00    a preregistered f                       | inactive none
1d+02:10 a heartbeat interval=1d at=1d+02:05     | online heartbeat-only since=1d+02:05
1d+02:20 a preregistered f at=1d+02:00           | online heartbeat-only changes=0
1d+02:21 * restart                               | online heartbeat-only changes=0
1d+02:30 a preregistered g at=1d+02:15           | online heartbeat-only changes=1 cause=moved since=1d+02:05 member=1d+02:15

== A nightly import of a device that never was in contact
10:00    a preregistered f                       | inactive none since=10:00
1d+02:00 a preregistered f                       | inactive none since=10:00 changes=0
2d+02:00 a preregistered f                       | inactive none changes=0
2d+02:01 * restart                               | inactive none changes=0
3d+02:00 a registered f                          | configuring none since=3d+02:00 cause=registered
4d+02:00 a preregistered f                       | inactive none since=4d+02:00

== A nightly import of a device that was deleted by hand brings it back
10:00    a registered f
10:01    a heartbeat interval=1d                 | online heartbeat-only version=2
10:05    a deleted                               | - emits=deleted
# That of the night before, told late, does not.
10:06    a registered f at=02:00                 | - changes=0
1d+02:00 a registered f                          | configuring none since=1d+02:00 version=4
