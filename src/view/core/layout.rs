//! Which cluster node holds which key.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use redis::cluster_routing::Slot;

use super::keys::Keys;

/// How many names are tried to find a replica marker for each node. Even a node
/// with a single slot is missed only with probability `e^-12`.
const NAMES_MAX: u32 = 200_000;

/// The number of hash slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// The number of the node that owns each slot.
pub type Slots = Arc<HashMap<Slot, u16, foldhash::fast::FixedState>>;

/// The map from keys to cluster nodes, for the placement of markers (rule V4).
#[derive(Clone, Debug, Default)]
pub struct Layout(Option<Slots>);

impl Layout {
    /// The layout of a cluster; without slots, of a single server.
    #[must_use]
    pub fn new(slots: Option<Slots>) -> Layout {
        Layout(slots)
    }

    /// The replica markers that a partition needs so that, with its own marker, each
    /// node has one: numbers for [`Keys::replica_marker`]. A single server needs none,
    /// nor do keys that share a hash tag.
    #[must_use]
    pub fn replica_markers(&self, keys: &Keys, partition: i32) -> Vec<u32> {
        let Layout(Some(slots)) = self else { return Vec::new() };
        let node = |key: &str| slots.get(&Slot::for_key(key));
        let mut bare: BTreeSet<&u16> = slots.values().collect();
        if let Some(own) = node(&keys.partition(partition)) {
            bare.remove(own);
        }
        if Slot::for_key(keys.replica_marker(partition, 0))
            == Slot::for_key(keys.replica_marker(partition, 1))
        {
            return Vec::new();
        }
        let mut replica_markers = Vec::new();
        for number in 0..NAMES_MAX {
            if bare.is_empty() {
                break;
            }
            if node(&keys.replica_marker(partition, number)).is_some_and(|node| bare.remove(node)) {
                replica_markers.push(number);
            }
        }
        replica_markers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layout whose nodes own equal shares of the slots.
    fn layout(nodes: u16) -> Layout {
        let slots = (0..SLOTS).filter_map(Slot::new).zip(0..);
        let share = SLOTS / nodes;
        let slots = slots.map(|(slot, n): (Slot, u16)| (slot, (n / share).min(nodes - 1)));
        Layout(Some(Arc::new(slots.collect())))
    }

    #[test]
    fn every_node_has_a_marker_of_every_partition() {
        let keys = Keys::new("ds:");
        for nodes in [1, 3, 16] {
            let Layout(Some(slots)) = layout(nodes) else { panic!("a cluster") };
            for partition in 0..50 {
                let replica_markers = Layout(Some(slots.clone())).replica_markers(&keys, partition);
                assert_eq!(replica_markers.len(), usize::from(nodes) - 1);
                let names = replica_markers.iter().map(|n| keys.replica_marker(partition, *n));
                let names = names.chain([keys.partition(partition)]);
                let covered: BTreeSet<u16> = names.map(|key| slots[&Slot::for_key(key)]).collect();
                assert_eq!(covered.len(), usize::from(nodes));
            }
        }
    }

    #[test]
    fn single_server_or_hash_tag_needs_no_replica_markers() {
        assert!(Layout::default().replica_markers(&Keys::new("ds:"), 3).is_empty());
        assert!(layout(3).replica_markers(&Keys::new("{ds}:"), 3).is_empty());
    }
}
