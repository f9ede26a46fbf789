//! The record that one run leaves for the next: which secret got the published token, what WeChat refused a short time ago, which
//! answers were lost, which tokens were replaced. It is a file beside the document, `DIR/ACCOUNT.state`. It is on each host even where
//! documents are in Redis: WeChat bans addresses.
//!
//! Nothing depends on a record. One that is missing, damaged or another account's counts as none, and a failure to write it is no
//! error. It holds no secret and no token but salted hashes. Of each replaced token it also holds a seed, which opens the gateway only,
//! and no more of it than the document beside it does.

mod lost;
mod replaced;
mod trouble;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use time::UtcDateTime;

use crate::log::debug;
use crate::model::client_key::opaque_token::TokenSeed;
use crate::model::document::{parse_rfc3339, rfc3339, whole_seconds};
use crate::model::errcode::{CallKind, Platform, Refusal};
use crate::model::secret::{Salt, Secret};
use crate::os::clock::Clock;
use crate::os::file::atomic::{self, Replacement};
use crate::os::file::dir::Dir;
use crate::os::file::lock::FileLock;
use crate::os::file::read::{self, Access};
use crate::os::timestamp::MAX_CLOCK_SKEW;
use crate::sabotage::{Bug, has_bug};

pub(crate) use lost::{LostAnswers, LostRequests};
use replaced::ReplacedTokens;
pub(crate) use replaced::{CACHED_BY_SDKS, MAX_REPLACED};
use trouble::RecordedTrouble;
pub(crate) use trouble::{TroubleClaim, TroubleEvent};

const MODE: u32 = 0o600;

/// How long to wait for another process on this host that holds the lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// The largest record that is read, in bytes. A full one has 8 KiB.
const MAX_RECORD: u64 = 16 * 1024;

/// How many refusals are kept, each of a different request: processes may have different secrets or proxies.
const MAX_REFUSALS: usize = 4;

/// How long anything counts at most.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What earlier runs left for one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    appid: String,
    salt: Salt,
    /// Which secret got the token that was published last.
    #[serde(default)]
    issued: Option<Issued>,
    /// The tokens that were replaced lately, the oldest first.
    #[serde(default, skip_serializing_if = "ReplacedTokens::is_empty")]
    replaced: ReplacedTokens,
    #[serde(default)]
    refusals: Vec<RecordedRefusal>,
    #[serde(default)]
    lost: LostRequests,
    /// The trouble that `on_trouble` was told of, or is to be told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trouble: Option<RecordedTrouble>,
}

/// Which secret got which token, both as hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Issued {
    token: String,
    secret: String,
}

/// A refusal, as the arguments of [`Refusal::new`]. Its meaning and how long it holds are looked up when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RecordedRefusal {
    /// The hash of the request.
    request: String,
    at: RecordedTime,
    errcode: i64,
    errmsg: String,
    call: CallKind,
    platform: Platform,
}

/// An instant, written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Cow<str>", into = "String")]
struct RecordedTime(UtcDateTime);

impl RecordedTime {
    /// Whether it is less than `span` before `now`. False for a time in the future: the clock was set back, and the age is unknown.
    fn is_within(self, span: Duration, now: UtcDateTime) -> bool {
        self.0 - now <= MAX_CLOCK_SKEW && now - self.0 < span
    }
}

impl From<RecordedTime> for String {
    fn from(at: RecordedTime) -> String {
        rfc3339(at.0)
    }
}

impl TryFrom<Cow<'_, str>> for RecordedTime {
    type Error = &'static str;

    fn try_from(text: Cow<'_, str>) -> Result<RecordedTime, &'static str> {
        let at = parse_rfc3339(&text).ok_or("it is not an RFC 3339 time")?;
        Ok(RecordedTime(whole_seconds(at)))
    }
}

impl Record {
    /// Returns an empty record; `None` if the system gives no random bytes for its salt.
    pub(crate) fn new(appid: &str) -> Option<Record> {
        let (appid, salt) = (appid.to_owned(), Salt::new()?);
        let (refusals, lost) = (Vec::new(), LostRequests::default());
        let replaced = ReplacedTokens::default();
        Some(Record { appid, salt, issued: None, replaced, refusals, lost, trouble: None })
    }

    /// Whether the record says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.issued.is_none()
            && self.refusals.is_empty()
            && self.lost.is_empty()
            && self.replaced.is_empty()
            && self.trouble.is_none()
    }

    /// Returns the salt of all hashes in this record.
    pub(crate) fn salt(&self) -> &Salt {
        &self.salt
    }

    /// Whether this token was got with a secret other than the one with this hash. `false` also if that is unknown.
    pub(crate) fn has_other_secret(&self, token: &Secret, secret: &str) -> bool {
        let issued = self.issued.as_ref();
        issued.is_some_and(|it| it.token == self.hash(token) && it.secret != secret)
    }

    /// Notes that the secret with this hash got this token, or that the token is honoured beside it.
    pub(crate) fn note_issued(&mut self, token: &Secret, secret: &str) {
        self.issued = Some(Issued { token: self.hash(token), secret: secret.to_owned() });
    }

    /// Notes that this token was published at `at`, in place of the token that was noted last, and in place of `before`.
    pub(crate) fn note_replacement(
        &mut self,
        token: &Secret,
        before: Option<&Secret>,
        at: UtcDateTime,
    ) {
        let new = self.hash(token);
        self.replaced.forget(&new);
        if let Some(noted) = self.issued.take_if(|noted| noted.token != new) {
            self.replaced.note(noted.token, None, at);
        }
        if let Some(before) = before.filter(|before| *before != token) {
            self.replaced.note(self.hash(before), Some(TokenSeed::of(before)), at);
        }
    }

    /// Whether this token was replaced within [`CACHED_BY_SDKS`] before `now`.
    pub(crate) fn has_replaced(&self, token: &str, now: UtcDateTime) -> bool {
        !self.replaced.is_empty() && self.replaced.contains(&self.salt.hash(&[token]), now)
    }

    /// Returns the seeds of the tokens that were replaced within [`CACHED_BY_SDKS`] before `now`, the latest first.
    pub(crate) fn replaced_seeds(&self, now: UtcDateTime) -> impl Iterator<Item = &TokenSeed> {
        self.replaced.seeds(now)
    }

    fn hash(&self, token: &Secret) -> String {
        self.salt.hash(&[token.expose()])
    }

    /// Returns the refusal of a request with this hash that still holds at `now`, and until when.
    pub(crate) fn refusal(
        &self,
        request: &str,
        now: UtcDateTime,
    ) -> Option<(Refusal, UtcDateTime)> {
        let recorded = self.refusals.iter().find(|it| it.request == request)?;
        let RecordedRefusal { at, errcode, errmsg, call, platform, .. } = recorded;
        let refusal = Refusal::new(*errcode, errmsg, *call, *platform);
        let until = refusal.holds_until(at.0)?;
        (now < until).then_some((refusal, until))
    }

    /// Returns the last refusal of any request, and its time, if it still holds at `now`. For a caller without the secret, who does not
    /// know whether the next request is the same.
    pub(crate) fn last_refusal(&self, now: UtcDateTime) -> Option<(Refusal, UtcDateTime)> {
        let last = self.refusals.iter().max_by_key(|it| it.at.0)?;
        let (refusal, _) = self.refusal(&last.request, now)?;
        Some((refusal, last.at.0))
    }

    /// Notes that the request with this hash was refused at `at`, in place of an earlier refusal of it. A refusal that does not keep
    /// later runs from asking is not kept.
    pub(crate) fn note_refusal(&mut self, request: &str, refusal: &Refusal, at: UtcDateTime) {
        self.forget_refusal(request);
        if refusal.holds_until(at).is_none() {
            return;
        }
        self.refusals.push(RecordedRefusal {
            request: request.to_owned(),
            at: RecordedTime(whole_seconds(at)),
            errcode: refusal.code,
            errmsg: refusal.text.clone(),
            call: refusal.call,
            platform: refusal.platform,
        });
        let superfluous = self.refusals.len().saturating_sub(MAX_REFUSALS);
        self.refusals.drain(..superfluous);
    }

    /// Forgets the refusal of the request with this hash.
    pub(crate) fn forget_refusal(&mut self, request: &str) {
        self.refusals.retain(|it| it.request != request);
    }

    /// Returns the requests whose answers were lost.
    pub(crate) fn lost(&self) -> &LostRequests {
        &self.lost
    }

    /// Returns the requests whose answers were lost, to change them.
    pub(crate) fn lost_mut(&mut self) -> &mut LostRequests {
        &mut self.lost
    }

    /// Drops what counts no longer, and what is from the future: the clock was set back, and the age is unknown.
    fn prune(&mut self, now: UtcDateTime) {
        self.refusals.retain(|it| it.at.is_within(DAY, now));
        self.lost.prune(now);
        self.replaced.prune(now);
    }
}

/// Returns the path of the record beside the document, or the copy, at this path.
pub(super) fn record_path(document: &Path) -> PathBuf {
    document.with_extension("state")
}

/// What came of a change to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordChange {
    Kept,
    /// The change was made in memory and could not be written: the next run does not know of it.
    Lost,
    /// No change was made: another process holds the lock.
    NotMade,
}

/// The file of one record.
#[derive(Clone, Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
}

impl RecordFile {
    /// Returns the record beside the document, or the copy, at this path.
    pub(super) fn beside(document: &Path) -> RecordFile {
        RecordFile { path: record_path(document) }
    }

    /// Returns the record, if there is one of the account with this AppID. Changes nothing.
    pub(super) fn read(&self, appid: &str, now: UtcDateTime) -> Option<Record> {
        match self.try_read() {
            Ok(record) => record.filter(|it| it.appid == appid).map(|mut record| {
                record.prune(now);
                record
            }),
            Err(err) => {
                debug!("{}: nothing is remembered: {err:#}", self.path.display());
                None
            }
        }
    }

    fn try_read(&self) -> Result<Option<Record>> {
        let (dir, name) = match Dir::of(&self.path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let file = match read::open_own_in(&dir, name, Access::Read) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        // Otherwise another user could keep this process from asking WeChat.
        let (found, dir) = (file.metadata()?, dir.stat_itself()?);
        let is_trusted = found.uid() == dir.st_uid || found.uid() == geteuid().as_raw();
        if !is_trusted || found.mode() & 0o022 != 0 {
            bail!("another user may have written it");
        }
        let bytes = read::read_bounded(file, found.len(), MAX_RECORD)?;
        // The message of serde would quote the file.
        let record = serde_json::from_slice(&bytes).ok().context("it is no record")?;
        Ok(Some(record))
    }

    /// Replaces the record. The caller holds the lock beside it.
    pub(super) fn write(&self, record: &Record) {
        self.log(self.try_write(record));
    }

    /// Makes an empty record if there is none, so that [`RecordFile::overwrite`] finds room on the disk.
    pub(super) fn make_room(&self, appid: &str, clock: &dyn Clock) {
        let is_missing = || matches!(self.try_read(), Ok(None));
        if is_missing()
            && let Ok(Some(_lock)) = self.lock(clock)
            && is_missing()
            && let Some(record) = Record::new(appid)
        {
            self.write(&record);
        }
    }

    /// Replaces the record, under the lock beside it. Keeps the trouble that the file has, which another process may have noted.
    pub(super) fn write_locked(&self, record: &Record, clock: &dyn Clock) {
        self.change(&record.appid, clock, &|known| {
            *known = Record { trouble: known.trouble.take(), ..record.clone() };
        });
    }

    /// Changes the record of the account with this AppID under the lock beside it. Makes a new record if there is none.
    pub(super) fn change(
        &self,
        appid: &str,
        clock: &dyn Clock,
        change: &dyn Fn(&mut Record),
    ) -> RecordChange {
        let lock = self.lock(clock);
        if matches!(lock, Ok(None)) {
            debug!("{}: another process holds the lock", self.path.display());
            return RecordChange::NotMade;
        }
        let before = self.read(appid, clock.now().wall);
        let Some(mut record) = before.clone().or_else(|| Record::new(appid)) else {
            return RecordChange::NotMade;
        };
        change(&mut record);
        let is_same = match &before {
            Some(before) => *before == record,
            None => record.is_empty(),
        };
        match lock.and_then(|_lock| if is_same { Ok(()) } else { self.try_write(&record) }) {
            Ok(()) => RecordChange::Kept,
            Err(err) => {
                debug!("{}: the next run is not told: {err:#}", self.path.display());
                RecordChange::Lost
            }
        }
    }

    fn try_write(&self, record: &Record) -> Result<()> {
        if has_bug(Bug::RecordNotWritten) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        Replacement::replace_at_once(&self.path, MODE, &line)
            .or_else(|err| self.overwrite(&line).map_err(|_| err))
    }

    /// Writes into the existing file, within the room that it has on the disk. A full disk takes no new file, and is a trouble of which
    /// `on_trouble` is told once only if that can be noted. A reader that comes in between sees no record.
    fn overwrite(&self, line: &[u8]) -> Result<()> {
        let (dir, name) = Dir::of(&self.path)?;
        let file = read::open_own_in(&dir, name, Access::ReadWrite)?;
        let found = file.metadata()?;
        // In units of 512 bytes, as of stat(2).
        if found.uid() != geteuid().as_raw() || found.blocks() * 512 < line.len() as u64 {
            bail!("the record has no room");
        }
        file.write_all_at(line, 0)?;
        file.set_len(line.len() as u64)?;
        Ok(file.sync_all()?)
    }

    /// Waits for the lock beside the record; `None` if another process holds it.
    fn lock(&self, clock: &dyn Clock) -> Result<Option<FileLock>> {
        atomic::make_dir_of(&self.path, MODE)?;
        let deadline = clock.instant() + PATIENCE;
        FileLock::acquire(&self.path.with_extension("lock"), clock, deadline)
    }

    fn log(&self, written: Result<()>) {
        if let Err(err) = written {
            debug!("{}: the next run is not told: {err:#}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::os::clock::testing::VirtualClock;

    const NOW: UtcDateTime = UtcDateTime::UNIX_EPOCH;

    fn at(secs: i64) -> UtcDateTime {
        NOW + time::Duration::seconds(secs)
    }

    fn record() -> Record {
        Record::new("wx1").unwrap()
    }

    fn token(name: &str) -> Secret {
        Secret::new(name.to_owned())
    }

    fn refused(code: i64) -> Refusal {
        Refusal::new(code, "invalid appsecret", CallKind::RequestsToken, Platform::Official)
    }

    #[test]
    fn a_record_of_nothing_but_replaced_tokens_is_not_empty() {
        let mut record = record();
        assert!(record.is_empty());
        record.note_replacement(&token("T2"), Some(&token("T1")), NOW);
        assert!(!record.is_empty());
    }

    #[test]
    fn room_is_made_for_a_record_that_a_full_disk_has_to_take_later() {
        let dir = tempfile::tempdir().unwrap();
        let (file, clock) =
            (RecordFile::beside(&dir.path().join("shop.json")), VirtualClock::new());
        file.make_room("wx1", &clock);
        let made = file.read("wx1", NOW).unwrap();
        assert!(made.is_empty());
        // No other file can be made.
        fs::create_dir(dir.path().join(".shop.state.tmp")).unwrap();
        let change = |record: &mut Record| record.note_refusal("hash", &refused(40125), NOW);
        assert_eq!(file.change("wx1", &clock, &change), RecordChange::Kept);
        let refused = file.read("wx1", NOW).unwrap();
        assert!(refused.refusal("hash", NOW).is_some());
        file.make_room("wx1", &clock);
        assert_eq!(file.read("wx1", NOW), Some(refused), "there is one");
    }

    #[test]
    fn a_record_survives_writing_and_reading_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&dir.path().join("shop.json"));
        assert_eq!(file.read("wx1", NOW), None);
        let mut record = record();
        record.note_issued(&token("T1"), "HASH");
        record.note_refusal("R1", &refused(40125), at(1));
        record.lost_mut().note(at(2));
        file.write(&record);
        assert_eq!(file.read("wx1", at(3)), Some(record));
        assert_eq!(file.read("wx2", at(3)), None, "it is another account's");
        let mode = fs::metadata(dir.path().join("shop.state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let text = fs::read_to_string(dir.path().join("shop.state")).unwrap();
        assert!(!text.contains("T1") && text.contains("invalid appsecret"), "{text}");
    }

    #[test]
    fn replaced_tokens_are_known_by_their_hashes_for_as_long_as_sdks_cache_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&dir.path().join("shop.json"));
        let mut record = record();
        for (name, secs) in [("T1", 0), ("T2", 60), ("T2", 90), ("T3", 120), ("T1", 180)] {
            record.note_replacement(&token(name), None, at(secs));
            record.note_issued(&token(name), "HASH");
        }
        file.write(&record);
        let text = fs::read_to_string(dir.path().join("shop.state")).unwrap();
        assert!(!text.contains("T2") && !text.contains("T3"), "{text}");
        let knows = |token: &str, secs: i64| {
            file.read("wx1", at(secs)).unwrap().has_replaced(token, at(secs))
        };
        assert!(knows("T2", 180) && knows("T2", 120 + 7199) && !knows("T2", 120 + 7200));
        assert!(knows("T3", 180) && knows("T3", 180 + 7199) && !knows("T3", 180 + 7200));
        assert!(!knows("T1", 180), "it is the published one again");
        assert!(!knows("T4", 180) && !knows("", 180) && !knows("T2", 0));
    }

    #[test]
    fn of_a_token_that_was_published_until_now_the_seed_is_known_and_not_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&dir.path().join("shop.json"));
        let mut record = record();
        record.note_issued(&token("TOKEN_0"), "HASH");
        // T1 was published elsewhere, as by another host that shares a Redis; T2 is confirmed.
        for (before, new, secs) in
            [("TOKEN_1", "TOKEN_2", 0), ("TOKEN_2", "TOKEN_2", 30), ("TOKEN_2", "TOKEN_3", 60)]
        {
            record.note_replacement(&token(new), Some(&token(before)), at(secs));
            record.note_issued(&token(new), "HASH");
        }
        file.write(&record);
        let text = fs::read_to_string(dir.path().join("shop.state")).unwrap();
        assert!(
            ["TOKEN_0", "TOKEN_1", "TOKEN_2", "TOKEN_3"].iter().all(|token| !text.contains(token)),
            "{text}"
        );
        let record = file.read("wx1", at(61)).unwrap();
        assert!(
            ["TOKEN_0", "TOKEN_1", "TOKEN_2"]
                .iter()
                .all(|token| record.has_replaced(token, at(61)))
        );
        assert!(!record.has_replaced("TOKEN_3", at(61)));
        let seeds = |secs| record.replaced_seeds(at(secs)).cloned().collect::<Vec<_>>();
        let [one, two] = ["TOKEN_1", "TOKEN_2"].map(|it| TokenSeed::of(&token(it)));
        assert_eq!(seeds(61), [two.clone(), one]);
        assert_eq!(seeds(7200), [two]);
        assert_eq!(seeds(7260), []);
        // What an earlier version wrote has none.
        let old = text.replace("\"seed\"", "\"other\"");
        let old: Record = serde_json::from_str(&old).unwrap();
        assert!(old.has_replaced("TOKEN_2", at(61)) && old.replaced_seeds(at(61)).next().is_none());
    }

    #[test]
    fn what_is_no_record_is_as_if_it_were_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.state");
        let file = RecordFile::beside(&dir.path().join("shop.json"));
        let good = serde_json::to_string(&record()).unwrap();
        let huge = good.replace('{', &format!("{{{}", " ".repeat(MAX_RECORD as usize)));
        for text in ["", "{}", "null", "{\"appid\":", &good[1..], &huge, "\u{0}"] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(file.read("wx1", NOW), None, "{text}");
        }
        fs::write(&path, &good).unwrap();
        assert!(file.read("wx1", NOW).is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(file.read("wx1", NOW), None, "others may have written it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert_eq!(file.read("wx1", NOW), None, "a link");
        // Nor is it an error that the record cannot be written.
        file.write(&record());
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    #[test]
    fn a_change_is_made_under_the_lock_and_written_only_if_there_is_one() {
        let clock = VirtualClock::new();
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&dir.path().join("shop.json"));
        file.change("wx1", &clock, &|_| ());
        assert!(!dir.path().join("shop.state").exists(), "there is nothing to remember");
        file.change("wx1", &clock, &|record| record.note_issued(&token("T1"), "HASH"));
        let before = fs::metadata(dir.path().join("shop.state")).unwrap().ino();
        file.change("wx1", &clock, &|record| record.note_issued(&token("T1"), "HASH"));
        assert_eq!(fs::metadata(dir.path().join("shop.state")).unwrap().ino(), before);
        let lock = dir.path().join("shop.lock");
        let held = FileLock::acquire(&lock, &clock, clock.instant()).unwrap();
        assert!(held.is_some());
        file.change("wx1", &clock, &|record| record.note_issued(&token("T2"), "HASH"));
        assert_eq!(fs::metadata(dir.path().join("shop.state")).unwrap().ino(), before);
    }

    #[test]
    fn another_secret_is_noticed_only_for_the_token_that_is_known() {
        let mut record = record();
        assert!(!record.has_other_secret(&token("T1"), "NEW"));
        record.note_issued(&token("T1"), "OLD");
        assert!(record.has_other_secret(&token("T1"), "NEW"));
        assert!(!record.has_other_secret(&token("T1"), "OLD"));
        assert!(!record.has_other_secret(&token("T2"), "NEW"), "another host may have got it");
    }

    #[test]
    fn a_refusal_holds_for_its_request_until_its_time_is_over() {
        let mut record = record();
        record.note_refusal("R1", &refused(40125), NOW);
        let (refusal, until) = record.refusal("R1", at(3599)).unwrap();
        assert_eq!((refusal.code, until), (40125, at(3600)));
        assert_eq!(refusal.to_string(), refused(40125).to_string());
        assert!(record.refusal("R1", at(3600)).is_none());
        assert!(record.refusal("R2", at(1)).is_none(), "another secret");
        // The next answer to the same request counts, and one that passes soon is no reason to wait.
        record.note_refusal("R1", &refused(45011), at(1));
        assert_eq!(record.refusal("R1", at(2)).unwrap().1, at(61));
        record.note_refusal("R1", &refused(-1), at(2));
        assert!(record.refusal("R1", at(2)).is_none());
    }

    #[test]
    fn refusals_of_a_few_requests_are_kept_and_no_more() {
        let mut record = record();
        for n in 0..9 {
            record.note_refusal(&format!("R{n}"), &refused(40125), at(n));
        }
        let is_held = |n: &i64| record.refusal(&format!("R{n}"), at(9)).is_some();
        assert_eq!((0..9).filter(is_held).collect::<Vec<_>>(), [5, 6, 7, 8]);
    }

    #[test]
    fn no_more_than_200_answers_are_lost_in_a_day_and_a_full_record_can_be_read() {
        let mut record = record();
        let (mut asked_at, mut now) = (Vec::new(), 0);
        while now < 3 * 86_400 {
            match record.lost().of_day(at(now)).and_then(|lost| lost.next_at) {
                Some(next_at) => now = (next_at - NOW).whole_seconds(),
                None => {
                    record.lost_mut().note(at(now));
                    asked_at.push(now);
                    now += 2;
                }
            }
            record.prune(at(now));
        }
        for start in (0..2 * 86_400).step_by(600) {
            let of_day = asked_at.iter().filter(|at| (start..start + 86_400).contains(*at)).count();
            assert!((170..=200).contains(&of_day), "{of_day} from {start}");
        }
        let mut before = None;
        for n in 0..100 {
            let token = token(&format!("T{n}"));
            record.note_replacement(&token, before.as_ref(), at(now));
            record.note_issued(&token, &"f".repeat(64));
            before = Some(token);
        }
        assert_eq!(record.replaced.len(), MAX_REPLACED);
        let longest = Refusal::new(40125, &"啊 ".repeat(300), CallKind::UsesToken, Platform::Work);
        (0..9).for_each(|n| record.note_refusal(&"f".repeat(64 + n), &longest, at(now)));
        let length = serde_json::to_vec(&record).unwrap().len() as u64;
        assert!(length < MAX_RECORD, "{length}");
    }

    #[test]
    fn an_answer_that_came_is_not_lost_and_one_of_yesterday_no_longer() {
        let mut record = record();
        record.lost_mut().note(at(0));
        record.lost_mut().note(at(5));
        record.lost_mut().note_answer(at(5));
        let lost = record.lost().of_day(at(6)).unwrap();
        assert_eq!((lost.count, lost.last_at, lost.next_at), (1, at(0), None));
        assert_eq!(record.lost().of_day(at(86_400)), None);
    }

    #[test]
    fn what_is_from_the_future_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&dir.path().join("shop.json"));
        let mut record = record();
        record.note_refusal("R1", &refused(40125), at(7200));
        (0..20).for_each(|_| record.lost_mut().note(at(7200)));
        file.write(&record);
        assert!(file.read("wx1", at(7200)).unwrap().refusal("R1", at(7200)).is_some());
        let read = file.read("wx1", at(0)).unwrap();
        assert!(read.refusal("R1", at(0)).is_none() && read.lost().of_day(at(0)).is_none());
    }
}
