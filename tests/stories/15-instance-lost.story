# A lost instance takes its devices with it, and nobody else's.
10:00 a vpn-opened v1 s1       | online vpn-only
10:00 b vpn-opened v2 s1       | online vpn-only
10:05 * instance-lost v1       | a: offline none since=10:05 cause=vpn-instance-lost ; b: online vpn-only changes=0
10:06 a vpn-opened v1 s2       | a: online vpn-only since=10:06
# What was opened before the loss does not count, whenever it arrives.
10:07 c vpn-opened v1 s3 at=10:04 | c: offline none changes=1
