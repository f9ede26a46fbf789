//! The steps that Redis does as one, as scripts. Each can be run twice without harm: a lost answer leaves open whether a
//! script ran, and it is then run again.

use std::time::Duration;

use super::connection::{RedisConnection, RedisError, RedisResult};
use super::protocol::{RedisValue, command};
use crate::model::document::MAX_DOCUMENT;

/// Takes the lock at `KEYS[1]` for the owner `ARGV[1]`, for `ARGV[2]` ms. One that never ends, as a copy of the keys may
/// leave behind, no process holds. A user who may not ask for that waits for it.
pub(super) const TAKE_LOCK: &str = "\
if redis.call('set', KEYS[1], ARGV[1], 'nx', 'px', ARGV[2]) then return 1 end
if redis.call('get', KEYS[1]) == ARGV[1] then return 1 end
if redis.pcall('pttl', KEYS[1]) ~= -1 then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return 1";

/// Releases the lock at `KEYS[1]`, if the owner `ARGV[1]` still holds it.
pub(super) const RELEASE_LOCK: &str = "\
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0";

/// Sets the lock at `KEYS[1]` to last `ARGV[2]` ms, if the owner `ARGV[1]` still holds it. Also tries whether the other
/// keys can be written, by writing nothing into them: SETRANGE fails for every reason for which SET would.
pub(super) const EXTEND_LOCK: &str = "\
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
for i = 2, #KEYS do redis.call('setrange', KEYS[i], 0, '') end
return 1";

/// Sets the lock likewise, and leaves at `KEYS[2]` the requests `ARGV[3]` for `ARGV[4]` ms; '' for none.
pub(super) const NOTE_LOST: &str = "\
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
if ARGV[3] == '' then redis.call('del', KEYS[2]) else redis.call('set', KEYS[2], ARGV[3], 'px', ARGV[4]) end
return 1";

/// Returns the first `ARGV[1] + 1` bytes of each key, or nil for one that cannot be read.
pub(super) const READ: &str = "\
local found = {}
for i = 1, #KEYS do
  local bytes = redis.pcall('getrange', KEYS[i], 0, ARGV[1])
  if type(bytes) ~= 'string' then bytes = false end
  found[i] = bytes
end
return found";

/// Publishes the document `ARGV[1]` at `KEYS[2]` for `ARGV[2]` ms, and leaves it at `KEYS[3]` for `ARGV[8]` ms, if the key
/// still has `ARGV[3]` ('' for nothing), or an older document. With `ARGV[4]` = '1' only if the key still has `ARGV[3]` and the owner `ARGV[5]` holds the lock at
/// `KEYS[1]`; with '0' the lock does not matter. If there is `KEYS[4]`, leaves there the requests `ARGV[9]` for as long; '' for
/// none. Then announces the key on the channel `ARGV[6]`. Of a value only the first `ARGV[7] + 1` bytes count.
///
/// This is the fence: a holder that lost the lock without notice finds another value than it has read, and a newer
/// document than its own. Documents of one boot have one clock. Else a `created_at` has one form, in which the later one
/// is the greater string.
pub(super) const PUBLISH: &str = "\
local there = redis.call('getrange', KEYS[2], 0, ARGV[7])
if ARGV[4] == '1' and redis.call('get', KEYS[1]) ~= ARGV[5] then return 0 end
if there ~= ARGV[3] and there ~= ARGV[1] then
  if ARGV[4] == '1' then return 0 end
  local ours = cjson.decode(ARGV[1])
  local is_document, theirs = pcall(cjson.decode, there)
  if is_document and type(theirs) == 'table' then
    local by = 'created_at'
    if ours.boot_id and ours.boot_id == theirs.boot_id then by = 'boottime' end
    if type(theirs[by]) == type(ours[by]) and theirs[by] >= ours[by] then return 0 end
  end
end
redis.call('set', KEYS[3], ARGV[1], 'px', ARGV[8])
redis.call('set', KEYS[2], ARGV[1], 'px', ARGV[2])
if ARGV[9] == '' then redis.call('del', KEYS[4]) elseif KEYS[4] then redis.call('set', KEYS[4], ARGV[9], 'px', ARGV[8]) end
redis.pcall('publish', ARGV[6], KEYS[2])
return 1";

/// Writes `ARGV[2]` to `KEYS[2]` for `ARGV[3]` ms, if `KEYS[1]` still has the document `ARGV[1]`. With `ARGV[4]` = '0' only
/// if it has another value. Fails if the key holds something else than a string: that is another program's.
const WRITE_ALSO: &str = "\
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
local there = redis.call('getrange', KEYS[2], 0, #ARGV[2])
if ARGV[4] == '1' or there ~= ARGV[2] then redis.call('set', KEYS[2], ARGV[2], 'px', ARGV[3]) end
return 1";

/// Tries whether the keys can be written, by writing nothing into them.
const TRY_WRITING: &str = "\
for i = 1, #KEYS do redis.call('setrange', KEYS[i], 0, '') end
return 1";

/// Reads the first bytes of each key, one more than a document has at most; `None` for one that cannot be read.
pub(super) fn read(
    connection: &mut RedisConnection,
    keys: &[&str],
) -> RedisResult<Vec<Option<Vec<u8>>>> {
    let read = command("EVAL").arg(READ).keys(keys).number(MAX_DOCUMENT);
    let values = connection.query(&read)?.into_list().ok_or(RedisError::Unexpected)?;
    Ok(values.into_iter().map(RedisValue::into_bytes).collect())
}

/// Reads the first bytes of one key, one more than a document has at most. Empty if there is no such key.
pub(super) fn read_one(connection: &mut RedisConnection, key: &str) -> RedisResult<Vec<u8>> {
    let read = command("GETRANGE").key(key).number(0).number(MAX_DOCUMENT);
    connection.query(&read)?.into_bytes().ok_or(RedisError::Unexpected)
}

/// Tries whether a script can write to `keys`.
pub(super) fn try_writing(connection: &mut RedisConnection, keys: &[&str]) -> RedisResult<()> {
    let eval = command("EVAL").arg(TRY_WRITING).keys(keys);
    connection.query(&eval).map(drop)
}

/// Runs each command without which scripts do nothing, at a key that is not used otherwise. A refused one is then named by the
/// server, which does not do so in a script.
pub(super) fn try_commands(connection: &mut RedisConnection, unused: &str) -> RedisResult<()> {
    let at_key = |name| command(name).arg(unused);
    for tried in [
        at_key("SET").arg("").arg("PX").number(1000),
        at_key("GET"),
        at_key("GETRANGE").number(0).number(0),
        at_key("SETRANGE").number(0).arg(""),
        at_key("DEL"),
    ] {
        connection.query(&tried)?;
    }
    Ok(())
}

/// Announces something on the channel that is not looked at.
pub(super) fn try_announcing(connection: &mut RedisConnection, channel: &str) -> RedisResult<()> {
    connection.query(&command("PUBLISH").arg(channel).arg("")).map(drop)
}

/// Takes a lock, if it is free. Returns whether `owner` holds it now.
pub(super) fn take_lock(
    connection: &mut RedisConnection,
    lock: &str,
    owner: &str,
    life: Duration,
) -> RedisResult<bool> {
    let eval = command("EVAL").arg(TAKE_LOCK).keys(&[lock]).arg(owner).number(millis(life));
    Ok(connection.query(&eval)?.is_one())
}

/// Releases a lock, if `owner` still holds it.
pub(super) fn release_lock(
    connection: &mut RedisConnection,
    lock: &str,
    owner: &str,
) -> RedisResult<()> {
    let eval = command("EVAL").arg(RELEASE_LOCK).keys(&[lock]).arg(owner);
    connection.query(&eval).map(drop)
}

/// Extends a lock, and tries whether `keys` can be written. Returns whether `owner` still held the lock.
pub(super) fn extend_lock(
    connection: &mut RedisConnection,
    lock: &str,
    owner: &str,
    life: Duration,
    keys: &[&str],
) -> RedisResult<bool> {
    let eval = command("EVAL").arg(EXTEND_LOCK).keys(&[&[lock], keys].concat());
    Ok(connection.query(&eval.arg(owner).number(millis(life)))?.is_one())
}

/// Extends a lock, and leaves `lost` at a key for a time. Returns whether `owner` still held the lock.
pub(super) fn note_lost(
    connection: &mut RedisConnection,
    lock: &str,
    owner: &str,
    life: Duration,
    lost: &LostArgs<'_>,
    memory: Duration,
) -> RedisResult<bool> {
    let eval = command("EVAL").arg(NOTE_LOST).keys(&[lock, lost.key]).arg(owner);
    let eval = eval.number(millis(life)).arg(lost.requests).number(millis(memory));
    Ok(connection.query(&eval)?.is_one())
}

/// The requests without an answer, and the key that has them for all hosts.
pub(super) struct LostArgs<'a> {
    pub(super) key: &'a str,
    /// Empty for none.
    pub(super) requests: &'a str,
}

/// What [`publish`] does.
pub(super) struct PublishArgs<'a> {
    pub(super) lock: &'a str,
    pub(super) key: &'a str,
    /// The key that remembers the document once it has ended.
    pub(super) last_key: &'a str,
    pub(super) document: &'a [u8],
    /// How long the key lasts.
    pub(super) life: Duration,
    /// How long the document is remembered.
    pub(super) memory: Duration,
    /// The value that the key is expected to have; empty for none.
    pub(super) expected: &'a [u8],
    /// The owner that has to hold the lock. Without one, a newer document may be published without it.
    pub(super) owner: Option<&'a str>,
    /// The requests without an answer that are known from then on, if that changes.
    pub(super) lost: Option<LostArgs<'a>>,
    pub(super) channel: &'a str,
}

/// Publishes a document. Returns whether it did: the fence may keep it out.
pub(super) fn publish(
    connection: &mut RedisConnection,
    args: &PublishArgs<'_>,
) -> RedisResult<bool> {
    let PublishArgs { owner, lost, .. } = args;
    let keys = [args.lock, args.key, args.last_key];
    let lost_key = lost.as_ref().map(|lost| lost.key);
    let eval = command("EVAL").arg(PUBLISH).keys(&[&keys[..], lost_key.as_slice()].concat());
    let eval = eval.arg(args.document).number(millis(args.life)).arg(args.expected);
    let eval = eval.number(i32::from(owner.is_some())).arg(owner.unwrap_or_default());
    let eval = eval.arg(args.channel).number(MAX_DOCUMENT).number(millis(args.memory));
    let requests = lost.as_ref().map(|lost| lost.requests);
    let eval = eval.args(requests.as_slice());
    Ok(connection.query(&eval)?.is_one())
}

/// What [`write_also`] does.
pub(super) struct AlsoArgs<'a> {
    /// The key of the document.
    pub(super) key: &'a str,
    /// The value that it has to have.
    pub(super) document: &'a [u8],
    /// How long the key of `[redis] also` lasts.
    pub(super) life: Duration,
    /// Whether it is written also if it has the right value, so that it lasts that long.
    pub(super) is_forced: bool,
}

/// Writes `value` to the key `also`, while the document is as expected.
pub(super) fn write_also(
    connection: &mut RedisConnection,
    args: &AlsoArgs<'_>,
    also: &str,
    value: &str,
) -> RedisResult<()> {
    let eval = command("EVAL").arg(WRITE_ALSO).keys(&[args.key, also]);
    let eval = eval.arg(args.document).arg(value);
    let eval = eval.number(millis(args.life)).number(i32::from(args.is_forced));
    connection.query(&eval).map(drop)
}

/// Waits until one replica has what was written, if there are replicas: a failover must not bring back what was replaced.
/// Gives up on a replica that lags after `patience`.
pub(super) fn await_replica(connection: &mut RedisConnection, patience: Duration) {
    let Ok(RedisValue::List(role)) = connection.query(&command("ROLE")) else { return };
    let has_replicas = matches!(role.get(2), Some(RedisValue::List(them)) if !them.is_empty());
    if has_replicas {
        let _ = connection.query(&command("WAIT").number(1).number(millis(patience)));
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}
