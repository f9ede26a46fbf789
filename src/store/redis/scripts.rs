//! What is done in Redis in one step, as scripts. Each does no harm when it is run twice, as it may be where an answer was
//! lost on the way.

use std::time::Duration;

use redis::{RedisResult, cmd};

use super::link::Link;

/// Takes the lock at `KEYS[1]` for its owner `ARGV[1]`, for `ARGV[2]` ms.
const TAKE: &str = "\
if redis.call('set', KEYS[1], ARGV[1], 'nx', 'px', ARGV[2]) then return 1 end
if redis.call('get', KEYS[1]) == ARGV[1] then return 1 end
return 0";

/// Lets go of the lock at `KEYS[1]`, if it is still `ARGV[1]`'s.
const LEAVE: &str = "\
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0";

/// Extends the lock at `KEYS[1]` by `ARGV[2]` ms, if it is still `ARGV[1]`'s; and tries whether the other keys could be
/// written, by writing nothing into them. All that would keep a SET from working keeps this from it, too.
const EXTEND: &str = "\
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
for i = 2, #KEYS do redis.call('setrange', KEYS[i], 0, '') end
return 1";

/// Publishes the document `ARGV[1]` at `KEYS[2]` for `ARGV[2]` ms, if `ARGV[3]` is still there ('' for nothing), or if it
/// is newer than what is. With `ARGV[4]` = '1' only if `ARGV[3]` is still there, and the lock at `KEYS[1]` is still
/// `ARGV[5]`'s; '0' knows no lock. Then tells those who listen on `ARGV[6]`. The keys from the third on get `ARGV[8…]`, for
/// `ARGV[7]` ms.
///
/// The fence: whoever lost the lock without noticing finds something else than he has read, and newer than what he brings.
/// A `created_at` has one form, in which the later is the greater.
const PUBLISH: &str = "\
local there = redis.call('get', KEYS[2]) or ''
if ARGV[4] == '1' and redis.call('get', KEYS[1]) ~= ARGV[5] then return 0 end
if there ~= ARGV[3] and there ~= ARGV[1] then
  if ARGV[4] == '1' then return 0 end
  local ours = cjson.decode(ARGV[1]).created_at
  local is_document, theirs = pcall(cjson.decode, there)
  if is_document and type(theirs) == 'table' and type(theirs.created_at) == 'string'
    and theirs.created_at >= ours then return 0 end
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

/// Gives the keys from the second on `ARGV[3…]` for `ARGV[2]` ms, where they have something else, as long as `ARGV[1]` is
/// what is published at `KEYS[1]`.
const MEND: &str = "\
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if redis.pcall('get', KEYS[i]) ~= ARGV[i + 1] then redis.call('set', KEYS[i], ARGV[i + 1], 'px', ARGV[2]) end
end
return 1";

/// Tries whether the keys could be written, by writing nothing into them.
const TRY: &str = "\
for i = 1, #KEYS do redis.call('setrange', KEYS[i], 0, '') end
return 1";

/// Tries whether a script could write at `keys`.
pub(super) fn try_out(connection: &mut Link, keys: &[String]) -> RedisResult<()> {
    cmd("EVAL").arg(TRY).arg(keys.len()).arg(keys).query(connection)
}

/// Takes a lock; whether it is ours now.
pub(super) fn take(
    connection: &mut Link,
    lock: &str,
    owner: &str,
    life: Duration,
) -> RedisResult<bool> {
    let mut eval = cmd("EVAL");
    eval.arg(TAKE).arg(1).arg(lock).arg(owner).arg(millis(life)).query(connection)
}

/// Lets go of a lock.
pub(super) fn leave(connection: &mut Link, lock: &str, owner: &str) -> RedisResult<()> {
    cmd("EVAL").arg(LEAVE).arg(1).arg(lock).arg(owner).query(connection)
}

/// Extends a lock and tries whether `keys` can be written; whether the lock was still ours.
pub(super) fn extend(
    connection: &mut Link,
    lock: &str,
    owner: &str,
    life: Duration,
    keys: &[String],
) -> RedisResult<bool> {
    let mut eval = cmd("EVAL");
    eval.arg(EXTEND).arg(1 + keys.len()).arg(lock).arg(keys);
    eval.arg(owner).arg(millis(life)).query(connection)
}

/// What is to be published.
pub(super) struct Publication<'a> {
    pub(super) lock: &'a str,
    pub(super) key: &'a str,
    pub(super) document: &'a [u8],
    /// How long it is kept.
    pub(super) life: Duration,
    /// What is expected to be there.
    pub(super) before: &'a [u8],
    /// Whose the lock has to be, if it has to be held.
    pub(super) owner: Option<&'a str>,
    pub(super) channel: &'a str,
    /// Other keys and what they get, as long as the token lives.
    pub(super) also: &'a [(String, String)],
    pub(super) also_life: Duration,
}

/// What came of it.
pub(super) enum Published {
    Done,
    /// Except for the other key of this number.
    Without(usize),
    /// Something else is there.
    Refused,
}

/// Publishes a document.
pub(super) fn publish(
    connection: &mut Link,
    publication: &Publication<'_>,
) -> RedisResult<Published> {
    let it = publication;
    let mut eval = cmd("EVAL");
    eval.arg(PUBLISH).arg(2 + it.also.len()).arg(it.lock).arg(it.key);
    for (key, _) in it.also {
        eval.arg(key);
    }
    eval.arg(it.document).arg(millis(it.life)).arg(it.before);
    eval.arg(i32::from(it.owner.is_some())).arg(it.owner.unwrap_or_default());
    eval.arg(it.channel).arg(millis(it.also_life));
    for (_, value) in it.also {
        eval.arg(value);
    }
    Ok(match eval.query::<i64>(connection)? {
        0 => Published::Refused,
        refused if refused < 0 => Published::Without((-refused - 3).max(0) as usize),
        _ => Published::Done,
    })
}

/// Gives other keys what they should have for so long, as long as this `document` is what is published at `key`.
pub(super) fn mend(
    connection: &mut Link,
    key: &str,
    document: &[u8],
    also: &[(String, String)],
    life: Duration,
) -> RedisResult<()> {
    let mut eval = cmd("EVAL");
    eval.arg(MEND).arg(1 + also.len()).arg(key);
    for (key, _) in also {
        eval.arg(key);
    }
    eval.arg(document).arg(millis(life));
    for (_, value) in also {
        eval.arg(value);
    }
    eval.query(connection)
}

/// Waits until one replica has what was written, where there are replicas: a failover must not bring back what was
/// before. One that lags does not keep us from going on.
pub(super) fn replicate(connection: &mut Link, patience: Duration) {
    let Ok(redis::Value::Array(role)) = cmd("ROLE").query(connection) else { return };
    let has_replicas = matches!(role.get(2), Some(redis::Value::Array(them)) if !them.is_empty());
    if has_replicas {
        let _ = cmd("WAIT").arg(1).arg(millis(patience)).query::<i64>(connection);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}
