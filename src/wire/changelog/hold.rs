//! The hold of a shard (rule J7), as the changelog stores it.

use super::{Wire, complete, proto};
use crate::shard::Cause;
use crate::shard::snapshot::{HeldScope, Hold};

impl Wire<proto::Hold> for Hold {
    fn message(&self) -> proto::Hold {
        let mut message = proto::Hold {
            clock_ms: self.clock.message(),
            at_ms: self.at.message(),
            judged_ms: self.judged.message(),
            cause: self.cause as u32,
            complete: true,
            ..proto::Hold::default()
        };
        let scope = match &self.scope {
            HeldScope::Instance(name, [before, after]) => {
                message.instance_before = Some(before.message());
                message.instance_after = Some(after.message());
                proto::hold::Scope::Instance(name.message())
            }
            HeldScope::Fleet(name, [before, after]) => {
                message.fleet_before = Some(before.message());
                message.fleet_after = Some(after.message());
                proto::hold::Scope::Fleet(name.message())
            }
            HeldScope::Organization(name, [before, after]) => {
                message.organization_before = Some(before.message());
                message.organization_after = Some(after.message());
                proto::hold::Scope::Organization(name.message())
            }
        };
        proto::Hold { scope: Some(scope), ..message }
    }

    fn read(message: &proto::Hold) -> Result<Hold, String> {
        complete(message.complete)?;
        let scope = match &message.scope {
            Some(proto::hold::Scope::Instance(name)) => {
                let facts = known(&message.instance_before, &message.instance_after)?;
                HeldScope::Instance(Wire::read(name)?, facts)
            }
            Some(proto::hold::Scope::Fleet(name)) => {
                let facts = known(&message.fleet_before, &message.fleet_after)?;
                HeldScope::Fleet(Wire::read(name)?, facts)
            }
            Some(proto::hold::Scope::Organization(name)) => {
                let facts = known(&message.organization_before, &message.organization_after)?;
                HeldScope::Organization(Wire::read(name)?, facts)
            }
            None => return Err("it names no scope".to_owned()),
        };
        let cause = (message.cause as usize).checked_sub(1);
        let cause = cause.and_then(|place| Cause::ALL.get(place));
        Ok(Hold {
            scope,
            at: Wire::read(&message.at_ms)?,
            judged: Wire::read(&message.judged_ms)?,
            cause: *cause.ok_or_else(|| format!("unknown cause {}", message.cause))?,
            clock: Wire::read(&message.clock_ms)?,
        })
    }
}

/// The facts of a scope before the change, and after it.
fn known<M, T: Wire<M> + Default>(before: &Option<M>, after: &Option<M>) -> Result<[T; 2], String> {
    let read = |message: &Option<M>| message.as_ref().map_or_else(|| Ok(T::default()), T::read);
    Ok([read(before)?, read(after)?])
}
