//! What each fault makes of a call: an answer in place of the right one, or the right one spoilt.
//! Bytes in, bytes out; the socket is `wire`'s, and waiting is `http`'s.

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::fault::{Fault, Kind};
use super::rules::Refusal;
use super::wire::Wire;

/// As WeChat types its JSON: `encoding`, not `charset`.
const JSON: &str = "application/json; encoding=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) location: Option<&'static str>,
    pub(crate) body: Bytes,
}

/// What comes of a call: HTTP, or what only a bare socket can do.
pub(crate) enum Effect {
    Answer(Answer),
    Wire(Wire),
}

/// The answer that the rules give: a JSON object, or a status with nothing under it.
pub(crate) enum Right {
    Object(Map<String, Value>),
    Status(u16),
}

impl Answer {
    pub(crate) fn json(value: &Value) -> Answer {
        Answer::ok(JSON, value.to_string())
    }

    pub(crate) fn text(status: u16, body: String) -> Answer {
        Answer { status, ..Answer::ok("text/plain; charset=utf-8", body) }
    }

    /// A status, and nothing to read.
    pub(crate) fn bare(status: u16) -> Answer {
        Answer { status, content_type: None, location: None, body: Bytes::new() }
    }

    fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
        Answer { status: 200, content_type: Some(content_type), location: None, body: body.into() }
    }
}

impl From<Right> for Answer {
    fn from(right: Right) -> Answer {
        match right {
            Right::Object(object) => Answer::json(&Value::Object(object)),
            Right::Status(status) => Answer::bare(status),
        }
    }
}

impl Right {
    /// As WeCom says that all is well.
    pub(crate) fn with_errcode_0(mut self) -> Right {
        if let Right::Object(object) = &mut self {
            object.insert("errcode".to_owned(), json!(0));
            object.insert("errmsg".to_owned(), json!("ok"));
        }
        self
    }
}

impl From<Refusal> for Right {
    fn from(refusal: Refusal) -> Right {
        let Refusal { errcode, errmsg } = refusal;
        Right::Object(Map::from_iter([
            ("errcode".to_owned(), json!(errcode)),
            ("errmsg".to_owned(), json!(errmsg)),
        ]))
    }
}

/// For the faults that never let the rules see the call; `None` for the others.
/// `refuse` words a refusal and `request` is the call as it came.
pub(crate) fn in_place(
    fault: Fault,
    request: &str,
    refuse: impl FnOnce(i64) -> Refusal,
) -> Option<Effect> {
    let answer = match fault.kind {
        Kind::Errcode => Right::from(refuse(fault.number)).into(),
        Kind::Http => gateway_page(fault.number),
        Kind::Hang => return Some(Effect::Wire(Wire::Silence)),
        Kind::Reset => return Some(Effect::Wire(Wire::Reset)),
        Kind::Close => return Some(Effect::Wire(Wire::Bytes(Bytes::new()))),
        Kind::Nothttp => return Some(Effect::Wire(Wire::Bytes(noise()))),
        Kind::Garbage => Answer::ok("application/octet-stream", noise()),
        Kind::Html => Answer::ok(
            HTML,
            "<html><head><title>Login</title></head><body><form>Guest network</form></body></html>\n",
        ),
        Kind::Empty => Answer::ok(JSON, ""),
        Kind::Redirect => Answer { location: Some("/elsewhere"), ..Answer::bare(302) },
        Kind::Echo => {
            let refusal = refuse(40013);
            Right::from(Refusal { errmsg: format!("{} in {request}", refusal.errmsg), ..refusal })
                .into()
        }
        Kind::Escape => {
            let refusal = refuse(40013);
            let errmsg = format!(
                "invalid appid \u{1b}[2J\u{1b}]0;owned\u{7}\r\nwxtoken: fetch: all is well\u{202e}\u{200b} {}",
                refusal.errmsg
            );
            Right::from(Refusal { errmsg, ..refusal }).into()
        }
        Kind::Array => {
            Answer::json(&json!([{ "access_token": "60_in_an_array", "expires_in": 7200 }]))
        }
        Kind::Null => Answer::json(&Value::Null),
        Kind::Depth => {
            Answer::ok(JSON, format!("{}0{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000)))
        }
        _ => return None,
    };
    Some(Effect::Answer(answer))
}

/// For the faults that spoil the right answer. Where it holds no token and no ticket (a refusal, a list of addresses) those
/// that spoil tokens leave it as it is.
pub(crate) fn spoil(fault: Fault, right: Right) -> Effect {
    let mut object = match right {
        Right::Object(object) => object,
        Right::Status(_) => return Effect::Answer(right.into()),
    };
    if let Some(key) = ["access_token", "ticket"].into_iter().find(|key| object.contains_key(*key))
    {
        spoil_token(fault.kind, key, &mut object);
    }
    if fault.kind == Kind::Errzero {
        object.entry("errcode").or_insert(json!(0));
        object.entry("errmsg").or_insert(json!("ok"));
    }
    let mut answer = Answer::from(Right::Object(object));
    let half = answer.body.len() / 2;
    Effect::Wire(match fault.kind {
        Kind::Lost => Wire::Reset,
        Kind::Truncated => {
            Wire::Bytes([head(&answer).as_slice(), &answer.body[..half]].concat().into())
        }
        Kind::Drip => Wire::Drip { head: head(&answer).into(), body: answer.body },
        // Behind the opening brace. No Content-Length: the body ends where the connection does.
        Kind::Huge => Wire::Flood {
            before: head_of_flood(),
            after: [b"\",".as_slice(), &answer.body[1..]].concat().into(),
        },
        Kind::Half => {
            answer.body.truncate(half);
            return Effect::Answer(answer);
        }
        _ => return Effect::Answer(answer),
    })
}

/// Spoils the token or the ticket that stands under `key`, or what is said of it.
fn spoil_token(kind: Kind, key: &'static str, object: &mut Map<String, Value>) {
    let left = object.get("expires_in").and_then(Value::as_u64).unwrap_or_default();
    let (key, value) = match kind {
        Kind::Emptytoken => (key, json!("")),
        Kind::Longtoken => (key, json!("60_".to_owned() + &"x".repeat(2997))),
        Kind::Badtoken => (key, json!("60_a b\n\"c")),
        Kind::Zero => ("expires_in", json!(0)),
        Kind::Negative => ("expires_in", json!(-1)),
        Kind::Forever => ("expires_in", json!(99_999_999)),
        Kind::Fraction => ("expires_in", json!(left as f64 + 0.5)),
        Kind::String => ("expires_in", json!(left.to_string())),
        Kind::Both => {
            object.insert(
                "errmsg".to_owned(),
                json!("invalid credential, access_token is invalid or not latest"),
            );
            ("errcode", json!(40001))
        }
        Kind::Notoken => return drop(object.remove(key)),
        Kind::Noexpiry => return drop(object.remove("expires_in")),
        _ => return,
    };
    object.insert(key.to_owned(), value);
}

/// The page of a gateway that cannot reach WeChat, or will not.
fn gateway_page(status: i64) -> Answer {
    let page = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    );
    // The grammar lets no other number through; 502 is what a gateway says most.
    Answer { status: u16::try_from(status).unwrap_or(502), ..Answer::ok(HTML, page) }
}

/// Bytes that are neither text nor JSON, from the first one on; the same each time, so that a failure can be repeated.
fn noise() -> Bytes {
    (0..512u32).map(|n| !(n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

fn head(answer: &Answer) -> Vec<u8> {
    format!(
        "HTTP/1.1 {} OK\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n",
        answer.status,
        answer.body.len()
    )
    .into_bytes()
}

fn head_of_flood() -> Bytes {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nConnection: close\r\n\r\n{{\"padding\":\"")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoilt(fault: &str, right: Value) -> Value {
        let Value::Object(object) = right else { panic!("an object") };
        match spoil(fault.parse().unwrap(), Right::Object(object)) {
            Effect::Answer(answer) => serde_json::from_slice(&answer.body).unwrap(),
            Effect::Wire(wire) => panic!("{wire}"),
        }
    }

    fn token() -> Value {
        json!({ "access_token": "60_t", "expires_in": 7200 })
    }

    #[test]
    fn a_token_is_spoilt_in_one_place_only() {
        assert_eq!(spoilt("notoken", token()), json!({ "expires_in": 7200 }));
        assert_eq!(
            spoilt("fraction", token()),
            json!({ "access_token": "60_t", "expires_in": 7200.5 })
        );
        assert_eq!(
            spoilt("string", token()),
            json!({ "access_token": "60_t", "expires_in": "7200" })
        );
        assert_eq!(
            spoilt("errzero", token()),
            json!({ "access_token": "60_t", "expires_in": 7200, "errcode": 0, "errmsg": "ok" })
        );
        let both = spoilt("both", token());
        assert_eq!((&both["errcode"], &both["access_token"]), (&json!(40001), &json!("60_t")));
    }

    #[test]
    fn a_ticket_is_spoilt_as_a_token_is() {
        let right = || json!({ "errcode": 0, "errmsg": "ok", "ticket": "t", "expires_in": 7200 });
        for (fault, key, value) in [
            ("emptytoken", "ticket", json!("")),
            ("notoken", "ticket", Value::Null),
            ("noexpiry", "expires_in", Value::Null),
            ("zero", "expires_in", json!(0)),
            ("both", "errcode", json!(40001)),
        ] {
            assert_eq!(spoilt(fault, right())[key], value, "{fault}");
        }
        for fault in ["longtoken", "badtoken"] {
            assert_ne!(spoilt(fault, right())["ticket"], "t", "{fault}");
        }
    }

    #[test]
    fn a_refusal_stays_a_refusal() {
        let refusal = json!({ "errcode": 40125, "errmsg": "invalid appsecret" });
        for kind in ["notoken", "badtoken", "zero", "errzero", "both", "string"] {
            assert_eq!(spoilt(kind, refusal.clone()), refusal, "{kind}");
        }
    }

    #[test]
    fn a_truncated_answer_promises_more_than_comes() {
        let Value::Object(object) = token() else { panic!("an object") };
        let Effect::Wire(Wire::Bytes(bytes)) =
            spoil("truncated".parse().unwrap(), Right::Object(object))
        else {
            panic!("bytes for the wire")
        };
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let whole = token().to_string();
        assert!(head.contains(&format!("Content-Length: {}", whole.len())), "{head}");
        assert_eq!(body, &whole[..whole.len() / 2]);
    }

    #[test]
    fn what_is_nested_too_deep_still_fits_into_a_bounded_read() {
        let fault: Fault = "depth".parse().unwrap();
        let refuse = |errcode| Refusal { errcode, errmsg: String::new() };
        let Some(Effect::Answer(answer)) = in_place(fault, "", refuse) else { panic!("an answer") };
        assert!(answer.body.len() < 64 * 1024, "{}", answer.body.len());
    }

    #[test]
    fn noise_is_not_text() {
        assert!(std::str::from_utf8(&noise()).is_err());
    }
}
