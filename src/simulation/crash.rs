//! Every crash of one publication: the power fails before each operation, each number of the names that were not synced
//! lasts, and each thing that can be left of a content is left.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use anyhow::Result;

use crate::os::file::atomic::{ReplaceError, Replacement};
use crate::os::file::disk::model::{self, Operation, Remains};

const OLD: &[u8] = b"the old document";
const INTERIM: &[u8] = b"the old document, shortened";
const NEW: &[u8] = b"the new document, which is a little longer";

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    /// Whether the interim document is published for good.
    static HAS_INTERIM: Cell<bool> = const { Cell::new(false) };
}

/// Fails once, at the operation that was chosen.
fn step(_: Operation) {
    match LEFT.get() {
        0 => resume_unwind(Box::new("the power fails")),
        left => LEFT.set(left - 1),
    }
}

fn replace(contents: &[&[u8]]) -> Result<()> {
    let target = Path::new(model::ROOT).join("0/shop.json");
    let mut replacement = Replacement::prepare(&target, 0o600, 4096)?;
    let (last, interim) = contents.split_last().expect("a content");
    for content in interim {
        replacement.publish_interim(content)?;
        HAS_INTERIM.set(true);
    }
    replacement.publish(last).map_err(ReplaceError::into_error)?;
    replacement.sync_dir()
}

#[test]
fn promise_1_whatever_the_power_cuts_off_the_document_is_whole_and_a_completed_one_stays() {
    let mut cuts = 0;
    for operations in 0.. {
        let mut is_complete = false;
        for lasting in 0..20 {
            let mut pending = 0;
            for remains in [Remains::Old, Remains::New, Remains::FirstHalf, Remains::Zeros] {
                model::install(1, step);
                LEFT.set(usize::MAX);
                replace(&[OLD]).unwrap();
                HAS_INTERIM.set(false);
                LEFT.set(operations);
                let result = catch_unwind(AssertUnwindSafe(|| replace(&[INTERIM, NEW]).unwrap()));
                LEFT.set(usize::MAX);
                is_complete = result.is_ok();
                let machine = model::machine(0);
                pending = machine.borrow().pending_names();
                machine.borrow_mut().cut_power(lasting.min(pending), || remains);
                let found = machine.borrow().content("shop.json").unwrap_or_default();
                let expected: &[&[u8]] = match (is_complete, HAS_INTERIM.get()) {
                    (true, _) => &[NEW],
                    (false, true) => &[INTERIM, NEW],
                    (false, false) => &[OLD, INTERIM],
                };
                let text = String::from_utf8_lossy(&found);
                assert!(
                    expected.contains(&&*found),
                    "{text:?} after {operations} operations, {lasting} names, {remains:?}"
                );
                cuts += 1;
                // What was left behind does not hinder the next one.
                replace(&[INTERIM, NEW]).unwrap();
            }
            if lasting >= pending {
                break;
            }
        }
        if is_complete {
            break;
        }
    }
    model::uninstall();
    assert!(cuts > 300, "{cuts}");
}
