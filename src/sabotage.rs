//! Deliberate bugs. The simulations have to find each of them, or they show nothing. In all other builds there are none:
//! the question whether there is one is answered when it is compiled.

/// A mistake that this program could have, and does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    LifeCountedFromAnswer,
    NoSecondLook,
    NotShortenedBeforeMint,
    LostAnswerTakenForNone,
    ForcedAtOnce,
    WorkLifeNotCapped,
    EarlierLostAnswerForgotten,
    RejectedTokenKept,
    LostAnswersNotCounted,
    LostAnswersTakenForAnswers,
    RefusalForgotten,
    WholeLifePromisedOnClassic,
    PromiseRoundedUp,
    AgeByWallClock,
    InterimNotPublished,
    RecordNotWritten,
    MarginIgnored,
    ShortenedToNothing,
    ContentNotSynced,
    DirectoryNotSynced,
    RenamedBeforeWritten,
    LeftoversStay,
    RoomNotReserved,
    LockNotWaitedFor,
    ReplacedFileMissed,
    CleanedUpWithoutLock,
    LostRequestsNotShared,
    LockNotExtended,
    LockNotLookedAt,
    FenceDropped,
    EndedDocumentForgotten,
    FailoverValueAccepted,
    PutBackWithOldLife,
    DeadTokenHandedOut,
    HonouredTokenReplaced,
    VerdictKept,
    VerdictHeldBack,
    MirrorLifeCountedFromAnswer,
    ShorterLifeIgnored,
}

/// Whether this program has `bug`.
#[cfg(not(test))]
pub(crate) const fn has_bug(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switched::{has_bug, switch};

#[cfg(test)]
mod switched {
    use std::cell::Cell;

    use super::Bug;

    thread_local!(static SWITCHED_ON: Cell<Option<Bug>> = const { Cell::new(None) });

    /// Whether this bug is switched on in this thread.
    pub(crate) fn has_bug(bug: Bug) -> bool {
        SWITCHED_ON.get() == Some(bug)
    }

    /// Switches a bug on, or all off.
    pub(crate) fn switch(bug: Option<Bug>) {
        SWITCHED_ON.set(bug);
    }
}
