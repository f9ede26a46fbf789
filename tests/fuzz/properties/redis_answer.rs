//! What a Redis, or what stands in its place, answers.

use crate::store::redis::protocol::{Answers, RedisValue};

/// Returns the answers in `data`, and whether it is Redis's protocol as far as it goes.
fn answers(data: &[u8], piece: usize) -> (Vec<RedisValue>, bool) {
    let (mut answers, mut found) = (Answers::default(), Vec::new());
    for piece in data.chunks(piece) {
        answers.add(piece);
        loop {
            match answers.take() {
                Ok(Some(value)) => found.push(value),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    (found, true)
}

/// Writes an answer as Redis does.
fn write(value: &RedisValue, to: &mut Vec<u8>) {
    match value {
        RedisValue::Nil => to.extend_from_slice(b"$-1\r\n"),
        RedisValue::Number(number) => to.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        RedisValue::Bytes(bytes) => {
            to.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            to.extend_from_slice(bytes);
            to.extend_from_slice(b"\r\n");
        }
        RedisValue::List(items) => {
            to.extend_from_slice(format!("*{}\r\n", items.len()).as_bytes());
            items.iter().for_each(|item| write(item, to));
        }
        RedisValue::Refusal { code, detail } => {
            to.extend_from_slice(format!("-{code} {detail}\r\n").as_bytes());
        }
    }
}

pub fn check(data: &[u8]) {
    let (whole, is_good) = answers(data, data.len().max(1));
    for piece in [1, 7] {
        assert_eq!(answers(data, piece), (whole.clone(), is_good), "{piece} bytes at a time");
    }
    let mut written = Vec::new();
    whole.iter().for_each(|value| write(value, &mut written));
    assert_eq!(answers(&written, written.len().max(1)), (whole, true));
}
