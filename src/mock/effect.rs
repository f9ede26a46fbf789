//! What each fault does to a call: it replaces the correct answer, or alters it.
//! Does no I/O: `wire` does what needs a bare socket, `http` waits.

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::fault::{FaultKind, MockFault};
use super::rules::MockRefusal;
use super::wire::WireAction;

/// WeChat's type for JSON; it says `encoding` where others say `charset`.
const JSON: &str = "application/json; encoding=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// An HTTP answer of the stand-in.
pub(crate) struct MockAnswer {
    pub(crate) status: u16,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) location: Option<&'static str>,
    pub(crate) body: Bytes,
}

/// How the server reacts to a call: by an HTTP answer, or by something that takes a bare socket.
pub(crate) enum Effect {
    Http(MockAnswer),
    Wire(WireAction),
}

/// The answer by WeChat's rules.
pub(crate) enum CorrectAnswer {
    Object(Map<String, Value>),
    /// An HTTP status without a body.
    Status(u16),
    /// An image.
    Media,
}

impl MockAnswer {
    pub(crate) fn json(value: &Value) -> MockAnswer {
        MockAnswer::ok(JSON, value.to_string())
    }

    pub(crate) fn text(status: u16, body: String) -> MockAnswer {
        MockAnswer { status, ..MockAnswer::ok("text/plain; charset=utf-8", body) }
    }

    /// Returns an answer without a body.
    pub(crate) fn empty(status: u16) -> MockAnswer {
        MockAnswer { status, content_type: None, location: None, body: Bytes::new() }
    }

    fn ok(content_type: &'static str, body: impl Into<Bytes>) -> MockAnswer {
        MockAnswer {
            status: 200,
            content_type: Some(content_type),
            location: None,
            body: body.into(),
        }
    }
}

impl From<CorrectAnswer> for MockAnswer {
    fn from(correct: CorrectAnswer) -> MockAnswer {
        match correct {
            CorrectAnswer::Object(object) => MockAnswer::json(&Value::Object(object)),
            CorrectAnswer::Status(status) => MockAnswer::empty(status),
            CorrectAnswer::Media => MockAnswer::ok("image/jpeg", binary_data()),
        }
    }
}

impl CorrectAnswer {
    /// Adds errcode 0, which WeCom and the ticket APIs send with each success.
    pub(crate) fn with_errcode_0(mut self) -> CorrectAnswer {
        if let CorrectAnswer::Object(object) = &mut self {
            object.insert("errcode".to_owned(), json!(0));
            object.insert("errmsg".to_owned(), json!("ok"));
        }
        self
    }
}

impl From<MockRefusal> for CorrectAnswer {
    fn from(refusal: MockRefusal) -> CorrectAnswer {
        let MockRefusal { errcode, errmsg } = refusal;
        CorrectAnswer::Object(Map::from_iter([
            ("errcode".to_owned(), json!(errcode)),
            ("errmsg".to_owned(), json!(errmsg)),
        ]))
    }
}

/// Returns the effect of a fault that replaces the answer: the rules do not see the call. `None` for the other faults.
/// `refuse` makes the refusal for an errcode; `request` is the whole call, which one of the faults repeats.
pub(crate) fn replacement(
    fault: MockFault,
    request: &str,
    refuse: impl FnOnce(i64) -> MockRefusal,
) -> Option<Effect> {
    let answer = match fault.kind {
        FaultKind::Errcode => CorrectAnswer::from(refuse(fault.number)).into(),
        FaultKind::Http => gateway_page(fault.number),
        FaultKind::Hang => return Some(Effect::Wire(WireAction::Silence)),
        FaultKind::Reset => return Some(Effect::Wire(WireAction::Reset)),
        FaultKind::Close => return Some(Effect::Wire(WireAction::Bytes(Bytes::new()))),
        FaultKind::Nothttp => return Some(Effect::Wire(WireAction::Bytes(binary_data()))),
        FaultKind::Garbage => MockAnswer::ok("application/octet-stream", binary_data()),
        FaultKind::Html => MockAnswer::ok(
            HTML,
            "<html><head><title>Login</title></head><body><form>Guest network</form></body></html>\n",
        ),
        FaultKind::Empty => MockAnswer::ok(JSON, ""),
        FaultKind::Redirect => {
            MockAnswer { location: Some("/elsewhere"), ..MockAnswer::empty(302) }
        }
        FaultKind::Echo => {
            let refusal = refuse(40013);
            CorrectAnswer::from(MockRefusal {
                errmsg: format!("{} in {request}", refusal.errmsg),
                ..refusal
            })
            .into()
        }
        FaultKind::Escape => {
            let refusal = refuse(40013);
            let errmsg = format!(
                "invalid appid \u{1b}[2J\u{1b}]0;owned\u{7}\r\nwxtoken: fetch: all is well\u{202e}\u{200b} {}",
                refusal.errmsg
            );
            CorrectAnswer::from(MockRefusal { errmsg, ..refusal }).into()
        }
        FaultKind::Array => {
            MockAnswer::json(&json!([{ "access_token": "60_in_an_array", "expires_in": 7200 }]))
        }
        FaultKind::Null => MockAnswer::json(&Value::Null),
        FaultKind::Depth => {
            MockAnswer::ok(JSON, format!("{}0{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000)))
        }
        _ => return None,
    };
    Some(Effect::Http(answer))
}

/// Applies a fault that alters the correct answer. The faults of tokens leave an answer without a token or ticket (a refusal, a
/// list of addresses) as it is.
pub(crate) fn alter(fault: MockFault, correct: CorrectAnswer) -> Effect {
    let mut object = match correct {
        CorrectAnswer::Object(object) => object,
        CorrectAnswer::Status(_) | CorrectAnswer::Media => return Effect::Http(correct.into()),
    };
    if let Some(key) = ["access_token", "ticket"].into_iter().find(|key| object.contains_key(*key))
    {
        alter_token(fault.kind, key, &mut object);
    }
    if fault.kind == FaultKind::Errzero {
        object.entry("errcode").or_insert(json!(0));
        object.entry("errmsg").or_insert(json!("ok"));
    }
    let mut answer = MockAnswer::from(CorrectAnswer::Object(object));
    let half = answer.body.len() / 2;
    Effect::Wire(match fault.kind {
        FaultKind::Lost => WireAction::Reset,
        FaultKind::Truncated => {
            WireAction::Bytes([head(&answer).as_slice(), &answer.body[..half]].concat().into())
        }
        FaultKind::Drip => WireAction::Drip { head: head(&answer).into(), body: answer.body },
        // The padding goes after the opening brace. Without a Content-Length, the end of the connection ends the body.
        FaultKind::Huge => WireAction::Flood {
            before: head_of_flood(),
            after: [b"\",".as_slice(), &answer.body[1..]].concat().into(),
        },
        FaultKind::Half => {
            answer.body.truncate(half);
            return Effect::Http(answer);
        }
        _ => return Effect::Http(answer),
    })
}

/// Applies a fault of tokens to the token or ticket under `key`, or to its expiry.
fn alter_token(kind: FaultKind, key: &'static str, object: &mut Map<String, Value>) {
    let left = object.get("expires_in").and_then(Value::as_u64).unwrap_or_default();
    let (key, value) = match kind {
        FaultKind::Emptytoken => (key, json!("")),
        FaultKind::Longtoken => (key, json!("60_".to_owned() + &"x".repeat(2997))),
        FaultKind::Badtoken => (key, json!("60_a b\n\"c")),
        FaultKind::Zero => ("expires_in", json!(0)),
        FaultKind::Negative => ("expires_in", json!(-1)),
        FaultKind::Forever => ("expires_in", json!(99_999_999)),
        FaultKind::Fraction => ("expires_in", json!(left as f64 + 0.5)),
        FaultKind::String => ("expires_in", json!(left.to_string())),
        FaultKind::Both => {
            object.insert(
                "errmsg".to_owned(),
                json!("invalid credential, access_token is invalid or not latest"),
            );
            ("errcode", json!(40001))
        }
        FaultKind::Notoken => return drop(object.remove(key)),
        FaultKind::Noexpiry => return drop(object.remove("expires_in")),
        _ => return,
    };
    object.insert(key.to_owned(), value);
}

/// An error page as a reverse proxy in front of WeChat sends it.
fn gateway_page(status: i64) -> MockAnswer {
    let page = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    );
    // `MockFault` has checked the range; the fallback is never used.
    MockAnswer { status: u16::try_from(status).unwrap_or(502), ..MockAnswer::ok(HTML, page) }
}

/// Returns bytes that are not text, beginning with the first. Constant, so that failures are reproducible.
fn binary_data() -> Bytes {
    (0..512u32).map(|n| !(n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

/// Returns the head for a body whose Content-Length is that of the whole answer.
fn head(answer: &MockAnswer) -> Vec<u8> {
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

    /// Applies the fault to the object and returns the answer's body.
    fn altered(fault: &str, correct: Value) -> Value {
        let Value::Object(object) = correct else { panic!("an object") };
        match alter(fault.parse().unwrap(), CorrectAnswer::Object(object)) {
            Effect::Http(answer) => serde_json::from_slice(&answer.body).unwrap(),
            Effect::Wire(wire) => panic!("{wire}"),
        }
    }

    fn token() -> Value {
        json!({ "access_token": "60_t", "expires_in": 7200 })
    }

    #[test]
    fn a_fault_of_a_token_changes_one_field_only() {
        assert_eq!(altered("notoken", token()), json!({ "expires_in": 7200 }));
        assert_eq!(
            altered("fraction", token()),
            json!({ "access_token": "60_t", "expires_in": 7200.5 })
        );
        assert_eq!(
            altered("string", token()),
            json!({ "access_token": "60_t", "expires_in": "7200" })
        );
        assert_eq!(
            altered("errzero", token()),
            json!({ "access_token": "60_t", "expires_in": 7200, "errcode": 0, "errmsg": "ok" })
        );
        let both = altered("both", token());
        assert_eq!((&both["errcode"], &both["access_token"]), (&json!(40001), &json!("60_t")));
    }

    #[test]
    fn faults_of_tokens_apply_to_tickets_too() {
        let correct = || json!({ "errcode": 0, "errmsg": "ok", "ticket": "t", "expires_in": 7200 });
        for (fault, key, value) in [
            ("emptytoken", "ticket", json!("")),
            ("notoken", "ticket", Value::Null),
            ("noexpiry", "expires_in", Value::Null),
            ("zero", "expires_in", json!(0)),
            ("both", "errcode", json!(40001)),
        ] {
            assert_eq!(altered(fault, correct())[key], value, "{fault}");
        }
        for fault in ["longtoken", "badtoken"] {
            assert_ne!(altered(fault, correct())["ticket"], "t", "{fault}");
        }
    }

    #[test]
    fn faults_of_tokens_leave_a_refusal_as_it_is() {
        let refusal = json!({ "errcode": 40125, "errmsg": "invalid appsecret" });
        for kind in ["notoken", "badtoken", "zero", "errzero", "both", "string"] {
            assert_eq!(altered(kind, refusal.clone()), refusal, "{kind}");
        }
    }

    #[test]
    fn a_truncated_answer_is_shorter_than_its_content_length() {
        let Value::Object(object) = token() else { panic!("an object") };
        let Effect::Wire(WireAction::Bytes(bytes)) =
            alter("truncated".parse().unwrap(), CorrectAnswer::Object(object))
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
    fn the_deeply_nested_answer_fits_into_64_kib() {
        let fault: MockFault = "depth".parse().unwrap();
        let refuse = |errcode| MockRefusal { errcode, errmsg: String::new() };
        let Some(Effect::Http(answer)) = replacement(fault, "", refuse) else {
            panic!("an answer")
        };
        assert!(answer.body.len() < 64 * 1024, "{}", answer.body.len());
    }

    #[test]
    fn binary_data_is_not_utf8() {
        assert!(std::str::from_utf8(&binary_data()).is_err());
    }
}
