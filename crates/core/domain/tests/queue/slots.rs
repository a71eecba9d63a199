//! The slots that were met, and what the real functions make of each.

use std::cell::RefCell;
use std::collections::HashMap;

use domain::booking::Reply;

use crate::Variant;
use crate::rules::Real;
use crate::slot::{Claim, Op, Slot, broken_between};

/// What a transaction led to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// The slot after it, by its index.
    pub(crate) slot: usize,
    pub(crate) reply: Reply,
    /// The rule that the transaction breaks, if any.
    pub(crate) broken: Option<&'static str>,
}

/// All slots that were met, and the transactions on them. The real functions are pure, so an answer is computed once
/// and looked up afterwards.
pub(crate) struct Slots {
    variant: Variant,
    known: RefCell<Vec<Slot>>,
    heard: RefCell<HashMap<(usize, Op), Heard>>,
}

impl Slots {
    pub(crate) fn new(variant: Variant) -> Self {
        Self { variant, known: RefCell::new(Vec::new()), heard: RefCell::new(HashMap::new()) }
    }

    pub(crate) fn get(&self, index: usize) -> Slot {
        self.known.borrow()[index]
    }

    pub(crate) fn index(&self, slot: Slot) -> usize {
        let mut known = self.known.borrow_mut();
        known.iter().position(|other| *other == slot).unwrap_or_else(|| {
            known.push(slot);
            known.len() - 1
        })
    }

    pub(crate) fn hear(&self, index: usize, op: Op) -> Heard {
        if let Some(heard) = self.heard.borrow().get(&(index, op)) {
            return *heard;
        }
        let before = self.get(index);
        let mut real = Real::of(&before);
        let reply = real.run(op, self.variant);
        let after = real.model(&before, op, self.variant);
        if let (Op::Reserve(booking, _) | Op::Release(booking), Variant::Design) = (op, self.variant)
            && before.claims[booking] == Claim::Ended
        {
            // so the model may drop what comes for it
            assert_eq!(after, before, "{op:?}");
        }
        let heard = Heard { slot: self.index(after), reply, broken: broken_between(&before, op, &after) };
        self.heard.borrow_mut().insert((index, op), heard);
        heard
    }
}
