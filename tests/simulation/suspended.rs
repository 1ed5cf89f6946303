//! Shards that are kept while the group moves, and what becomes of their view
//! (rule R7).

use device_status::shard::Input;
use device_status::stream_thread::report::StageName;
use device_status::wire::proto::v1::{self, lifecycle_event as lifecycle};

use crate::script::worlds;

#[test]
fn a_shard_that_is_taken_again_while_an_input_has_no_leader_goes_on_writing_its_view() {
    worlds(
        |plan| plan.classic = true,
        |script| {
            script.polls("device", 10_000, 10_100, 10_000);
            script.until(15_000);
            let epoch = script.epoch();
            script.has_no_leader(Input::Lifecycle, 0, 60_000);
            script.another_member_joins();
            script.until_its_shard_is(StageName::Created);
            script.evicts_the_member();
            script.until(80_000);
            assert_eq!(script.epoch(), epoch, "the shard was not resumed");
            // It goes offline after that, and Redis is to show it.
            script.ends_well();
            assert_eq!(script.changes("device").len(), 2);
        },
    );
}

#[test]
fn a_shard_hears_of_what_the_view_wrote_while_it_was_suspended() {
    worlds(
        |plan| {
            plan.classic = true;
            plan.rules.tombstone_retention_ms = 60_000;
        },
        |script| {
            script.polls("device", 10_000, 10_100, 10_000);
            script.until(15_000);
            let epoch = script.epoch();
            script.loses_redis(50_000);
            let deleted = lifecycle::Event::Deleted(v1::Deleted {});
            script.says(Some("device"), 16_000, deleted);
            script.until(18_000);
            script.has_no_leader(Input::Lifecycle, 0, 60_000);
            script.another_member_joins();
            script.until_its_shard_is(StageName::Created);
            script.until(55_000);
            script.until_it_runs();
            assert_eq!(script.epoch(), epoch, "the shard was not resumed");
            assert_eq!(script.rows(), 1, "the deletion is remembered");
            script.until(180_000);
            assert_eq!(script.rows(), 0, "the deletion is never forgotten");
            script.ends_well();
        },
    );
}
