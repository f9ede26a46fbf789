//! The steps that Redis does as one, as scripts. Each can be run twice without harm: a lost answer leaves open whether a
//! script ran, and it is then run again.

use std::time::Duration;

use redis::{RedisResult, cmd};

use super::connection::BoundedConnection;

/// Takes the lock at `KEYS[1]` for the owner `ARGV[1]`, for `ARGV[2]` ms.
const TAKE_LOCK: &str = "\
if redis.call('set', KEYS[1], ARGV[1], 'nx', 'px', ARGV[2]) then return 1 end
if redis.call('get', KEYS[1]) == ARGV[1] then return 1 end
return 0";

/// Releases the lock at `KEYS[1]`, if the owner `ARGV[1]` still holds it.
const RELEASE_LOCK: &str = "\
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0";

/// Sets the lock at `KEYS[1]` to last `ARGV[2]` ms, if the owner `ARGV[1]` still holds it. Also tries whether the other
/// keys can be written, by writing nothing into them: SETRANGE fails for every reason for which SET would.
const EXTEND_LOCK: &str = "\
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
for i = 2, #KEYS do redis.call('setrange', KEYS[i], 0, '') end
return 1";

/// Publishes the document `ARGV[1]` at `KEYS[2]` for `ARGV[2]` ms, if the key still has `ARGV[3]` ('' for nothing), or an
/// older document. With `ARGV[4]` = '1' only if the key still has `ARGV[3]` and the owner `ARGV[5]` holds the lock at
/// `KEYS[1]`; with '0' the lock does not matter. Then announces the key on the channel `ARGV[6]`. The keys from the third
/// on get `ARGV[8…]`, for `ARGV[7]` ms.
///
/// This is the fence: a holder that lost the lock without notice finds another value than it has read, and a newer
/// document than its own. Documents of one boot have one clock. Else a `created_at` has one form, in which the later one
/// is the greater string.
const PUBLISH: &str = "\
local there = redis.call('get', KEYS[2]) or ''
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
redis.call('set', KEYS[2], ARGV[1], 'px', ARGV[2])
local refused = 0
for i = 3, #KEYS do
  local done = redis.pcall('set', KEYS[i], ARGV[i + 5], 'px', ARGV[7])
  if type(done) == 'table' and done.err then refused = i end
end
redis.pcall('publish', ARGV[6], KEYS[2])
if refused > 0 then return -refused end
return 1";

/// Writes `ARGV[3…]` to those keys from the second on that have another value, for `ARGV[2]` ms, if `KEYS[1]` still has
/// the document `ARGV[1]`.
const SYNC_ALSO: &str = "\
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if redis.pcall('get', KEYS[i]) ~= ARGV[i + 1] then redis.call('set', KEYS[i], ARGV[i + 1], 'px', ARGV[2]) end
end
return 1";

/// Tries whether the keys can be written, by writing nothing into them.
const TRY_WRITING: &str = "\
for i = 1, #KEYS do redis.call('setrange', KEYS[i], 0, '') end
return 1";

/// Tries whether a script can write to `keys`.
pub(super) fn try_writing(connection: &mut BoundedConnection, keys: &[String]) -> RedisResult<()> {
    cmd("EVAL").arg(TRY_WRITING).arg(keys.len()).arg(keys).query(connection)
}

/// Takes a lock, if it is free. Returns whether `owner` holds it now.
pub(super) fn take_lock(
    connection: &mut BoundedConnection,
    lock: &str,
    owner: &str,
    life: Duration,
) -> RedisResult<bool> {
    let mut eval = cmd("EVAL");
    eval.arg(TAKE_LOCK).arg(1).arg(lock).arg(owner).arg(millis(life)).query(connection)
}

/// Releases a lock, if `owner` still holds it.
pub(super) fn release_lock(
    connection: &mut BoundedConnection,
    lock: &str,
    owner: &str,
) -> RedisResult<()> {
    cmd("EVAL").arg(RELEASE_LOCK).arg(1).arg(lock).arg(owner).query(connection)
}

/// Extends a lock, and tries whether `keys` can be written. Returns whether `owner` still held the lock.
pub(super) fn extend_lock(
    connection: &mut BoundedConnection,
    lock: &str,
    owner: &str,
    life: Duration,
    keys: &[String],
) -> RedisResult<bool> {
    let mut eval = cmd("EVAL");
    eval.arg(EXTEND_LOCK).arg(1 + keys.len()).arg(lock).arg(keys);
    eval.arg(owner).arg(millis(life)).query(connection)
}

/// What [`publish`] does.
pub(super) struct PublishArgs<'a> {
    pub(super) lock: &'a str,
    pub(super) key: &'a str,
    pub(super) document: &'a [u8],
    /// How long the key lasts.
    pub(super) life: Duration,
    /// The value that the key is expected to have; empty for none.
    pub(super) expected: &'a [u8],
    /// The owner that has to hold the lock. Without one, a newer document may be published without it.
    pub(super) owner: Option<&'a str>,
    pub(super) channel: &'a str,
    /// The keys of `[redis] also` and their values.
    pub(super) also: &'a [(String, String)],
    /// How long those keys last.
    pub(super) also_life: Duration,
}

/// The result of [`publish`].
pub(super) enum PublishOutcome {
    Published,
    /// The document is published, and the key of `[redis] also` with this index could not be written.
    PublishedWithoutAlso(usize),
    /// The fence kept it out.
    Refused,
}

/// Publishes a document, unless the fence keeps it out.
pub(super) fn publish(
    connection: &mut BoundedConnection,
    args: &PublishArgs<'_>,
) -> RedisResult<PublishOutcome> {
    let PublishArgs { also, owner, .. } = args;
    let mut eval = cmd("EVAL");
    eval.arg(PUBLISH).arg(2 + also.len()).arg(args.lock).arg(args.key);
    for (key, _) in *also {
        eval.arg(key);
    }
    eval.arg(args.document).arg(millis(args.life)).arg(args.expected);
    eval.arg(i32::from(owner.is_some())).arg(owner.unwrap_or_default());
    eval.arg(args.channel).arg(millis(args.also_life));
    for (_, value) in *also {
        eval.arg(value);
    }
    Ok(match eval.query::<i64>(connection)? {
        0 => PublishOutcome::Refused,
        // Keys are counted from 1, and two come before those of `also`.
        key if key < 0 => PublishOutcome::PublishedWithoutAlso((-key - 3).max(0) as usize),
        _ => PublishOutcome::Published,
    })
}

/// Writes the values of `also` to those keys that have another value, if `key` still has `document`. They last for `life`.
pub(super) fn sync_also(
    connection: &mut BoundedConnection,
    key: &str,
    document: &[u8],
    also: &[(String, String)],
    life: Duration,
) -> RedisResult<()> {
    let mut eval = cmd("EVAL");
    eval.arg(SYNC_ALSO).arg(1 + also.len()).arg(key);
    for (key, _) in also {
        eval.arg(key);
    }
    eval.arg(document).arg(millis(life));
    for (_, value) in also {
        eval.arg(value);
    }
    eval.query(connection)
}

/// Waits until one replica has what was written, if there are replicas: a failover must not bring back what was replaced.
/// Gives up on a replica that lags after `patience`.
pub(super) fn await_replica(connection: &mut BoundedConnection, patience: Duration) {
    let Ok(redis::Value::Array(role)) = cmd("ROLE").query(connection) else { return };
    let has_replicas = matches!(role.get(2), Some(redis::Value::Array(them)) if !them.is_empty());
    if has_replicas {
        let _ = cmd("WAIT").arg(1).arg(millis(patience)).query::<i64>(connection);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}
