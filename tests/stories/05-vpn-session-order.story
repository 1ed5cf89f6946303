# A close ends its own session and no other, even when it comes first.
10:00 a vpn-opened v1 s1           | online vpn-only since=10:00
10:05 a vpn-opened v1 s2           | online vpn-only changes=0
10:06 a vpn-closed v1 s1 at=10:04  | online vpn-only changes=0
10:10 a vpn-closed v1 s3           | online vpn-only changes=0
10:11 a vpn-opened v1 s3 at=10:09  | online vpn-only changes=0
10:20 a vpn-closed v1 s2           | offline none since=10:20
# Of s3 the close is known: it does not come back.
10:21 a vpn-opened v1 s3 at=10:08  | offline none changes=0
