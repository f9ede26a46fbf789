//! Reads `store` and `[redis]` of the config file: the Redis that several hosts share. Connects to nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::faults;
use super::table::{Table, Value};
use crate::model::address::redis_url::RedisUrl;
use crate::model::location::{AlsoFormat, AlsoKey, RedisSettings};

/// What the names of all keys begin with by default.
const DEFAULT_PREFIX: &str = "wxtoken";

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// No refresh has the time to wait longer for an answer.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest key of `also`, in bytes.
const MAX_KEY: usize = 256;

/// Returns the Redis that the file names, if there is one.
pub(super) fn read(top: &mut Table<'_>) -> Option<Arc<RedisSettings>> {
    let url = top.get("store", read_url);
    let settings = top.table("redis", RedisTable::read);
    if settings.as_ref().is_some_and(|settings| !settings.is_empty) && !top.has("store") {
        top.report("redis", faults::NO_STORE);
    }
    let settings = settings.unwrap_or_default();
    let url = url?;
    if settings.ca_file.is_some() && !url.is_tls() {
        top.report("store", faults::CA_WITHOUT_TLS);
    }
    if (settings.user.is_some() || url.user.is_some()) && settings.password_file.is_none() {
        top.report("store", faults::NO_PASSWORD);
    }
    Some(Arc::new(RedisSettings {
        url,
        user: settings.user,
        password_file: settings.password_file,
        ca_file: settings.ca_file,
        prefix: settings.prefix.unwrap_or_else(|| DEFAULT_PREFIX.to_owned()),
        timeout: settings.timeout.unwrap_or(DEFAULT_TIMEOUT),
        also: settings.also,
    }))
}

/// `[redis]`.
#[derive(Default)]
struct RedisTable {
    is_empty: bool,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    prefix: Option<String>,
    timeout: Option<Duration>,
    also: Vec<AlsoKey>,
}

impl RedisTable {
    fn read(table: &mut Table<'_>) -> RedisTable {
        let settings = RedisTable {
            is_empty: table.is_empty(),
            user: table.get("user", read_user),
            password_file: table.get("password_file", Value::path),
            ca_file: table.get("ca_file", Value::path),
            prefix: table.get("prefix", read_prefix),
            timeout: table.get("timeout", read_timeout),
            also: read_also(table),
        };
        if table.has("password") {
            table.mark_known("password");
            table.report("password", faults::PASSWORD_KEY);
        }
        settings
    }
}

/// The keys under which SDKs look for the bare token.
fn read_also(table: &mut Table<'_>) -> Vec<AlsoKey> {
    let example = "{ key = \"app:{appid}:token\", format = \"text\" }";
    let rows = table.table_list("also", example, |row| {
        let key = row.require("key", faults::ALSO_NO_KEY, read_also_key);
        let format = row.require("format", faults::ALSO_NO_FORMAT, read_also_format);
        Some(AlsoKey { key: key?, format: format? })
    });
    rows.into_iter().flatten().collect()
}

fn read_also_key(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    if text.len() > MAX_KEY || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(faults::INVALID_KEY.to_owned());
    }
    if !text.contains("{appid}") && !text.contains("{account}") {
        return Err(faults::KEY_OF_ALL.to_owned());
    }
    let rest = text.replace("{appid}", "").replace("{account}", "");
    match rest.contains(['{', '}']) {
        true => Err(faults::KEY_BRACES.to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn read_also_format(value: Value<'_>) -> Result<AlsoFormat, String> {
    match value.text()? {
        "text" => Ok(AlsoFormat::Text),
        "json-string" => Ok(AlsoFormat::JsonString),
        _ => Err(faults::UNKNOWN_FORMAT.to_owned()),
    }
}

fn read_url(value: Value<'_>) -> Result<RedisUrl, String> {
    Ok(RedisUrl::parse(value.secret_text()?)?)
}

fn read_user(value: Value<'_>) -> Result<String, String> {
    match value.text()? {
        "" => Err(faults::EMPTY.to_owned()),
        user => Ok(user.to_owned()),
    }
}

fn read_prefix(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":_-./".contains(&byte);
    match (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
        true => Ok(text.to_owned()),
        false => Err(faults::INVALID_PREFIX.to_owned()),
    }
}

fn read_timeout(value: Value<'_>) -> Result<Duration, String> {
    match value.positive_duration()? {
        long if long > MAX_TIMEOUT => Err(faults::LONG_TIMEOUT.to_owned()),
        timeout => Ok(timeout),
    }
}
