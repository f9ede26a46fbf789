//! The table of faults: their names, the number that some take, and which calls and how many of them they apply to.
//! `effect` implements what each of them does.

use std::fmt;
use std::str::FromStr;

use crate::language::{bilingual, in_both};

/// What goes wrong; [`FAULTS`] describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Errcode,
    Http,
    Slow,
    Hang,
    Reset,
    Close,
    Lost,
    Nothttp,
    Garbage,
    Html,
    Empty,
    Redirect,
    Echo,
    Escape,
    Array,
    Null,
    Depth,
    Huge,
    Truncated,
    Half,
    Drip,
    Notoken,
    Emptytoken,
    Longtoken,
    Badtoken,
    Noexpiry,
    Zero,
    Negative,
    Forever,
    Fraction,
    String,
    Errzero,
    Both,
}

/// The calls that a fault can be limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallGroup {
    /// Those that hand out tokens.
    Token,
    /// Those that tell whether a token lives: both lists of addresses.
    Probe,
    /// Those that hand out tickets.
    Ticket,
    /// Those that do something for an account: messages, uploads and downloads.
    Api,
}

/// The groups as they are typed before a fault.
const CALL_GROUPS: [(&str, CallGroup); 4] = [
    ("token", CallGroup::Token),
    ("probe", CallGroup::Probe),
    ("ticket", CallGroup::Ticket),
    ("api", CallGroup::Api),
];

/// A line of the table.
pub(crate) struct FaultEntry {
    /// As it is typed.
    name: &'static str,
    kind: FaultKind,
    /// What the number after the colon is called, and an example; `None` if the fault takes none.
    number: Option<(&'static str, i64)>,
    pub(crate) about: &'static str,
}

/// Every fault. Those that mention "the right answer" let the rules handle the call first, which may mint a token.
pub(crate) const FAULTS: &[FaultEntry] = &[
    numbered(
        "errcode",
        FaultKind::Errcode,
        ("N", 40164),
        "HTTP 200 with this errcode, in WeChat's words where they are known",
    ),
    numbered("http", FaultKind::Http, ("STATUS", 502), "this HTTP status and a gateway's page"),
    numbered("slow", FaultKind::Slow, ("SECONDS", 1), "the right answer, late"),
    plain("hang", FaultKind::Hang, "no answer, and the connection stays open"),
    plain("reset", FaultKind::Reset, "no answer; the connection is reset"),
    plain("close", FaultKind::Close, "no answer; the connection is closed"),
    plain(
        "lost",
        FaultKind::Lost,
        "the right answer is lost: the connection is reset after the mint",
    ),
    plain("nothttp", FaultKind::Nothttp, "bytes that are not HTTP, then the connection is closed"),
    plain("garbage", FaultKind::Garbage, "HTTP 200 with a binary body"),
    plain("html", FaultKind::Html, "HTTP 200 with a login page, as a captive portal answers"),
    plain("empty", FaultKind::Empty, "HTTP 200 without a body"),
    plain("redirect", FaultKind::Redirect, "302 to /elsewhere"),
    plain(
        "echo",
        FaultKind::Echo,
        "errcode 40013 whose text repeats the whole request, secret included",
    ),
    plain(
        "escape",
        FaultKind::Escape,
        "errcode 40013 whose text has terminal escapes, line ends and bidi marks",
    ),
    plain("array", FaultKind::Array, "an array where an object is due"),
    plain("null", FaultKind::Null, "null where an object is due"),
    plain("depth", FaultKind::Depth, "JSON nested 10,000 deep"),
    plain("huge", FaultKind::Huge, "the right answer behind 512 MiB of padding inside the JSON"),
    plain(
        "truncated",
        FaultKind::Truncated,
        "half of the right answer, less than its Content-Length, then the connection is closed",
    ),
    plain(
        "half",
        FaultKind::Half,
        "the right answer cut in the middle, with a Content-Length that fits",
    ),
    plain("drip", FaultKind::Drip, "the right answer, a byte a second"),
    plain("notoken", FaultKind::Notoken, "the right answer without its token or ticket"),
    plain("emptytoken", FaultKind::Emptytoken, "the right answer with an empty token"),
    plain("longtoken", FaultKind::Longtoken, "the right answer with a token of 3,000 characters"),
    plain(
        "badtoken",
        FaultKind::Badtoken,
        "the right answer with a token that has a space, a line end and a quote",
    ),
    plain("noexpiry", FaultKind::Noexpiry, "the right answer without expires_in"),
    plain("zero", FaultKind::Zero, "the right answer with expires_in 0"),
    plain("negative", FaultKind::Negative, "the right answer with expires_in -1"),
    plain("forever", FaultKind::Forever, "the right answer with expires_in 99999999"),
    plain(
        "fraction",
        FaultKind::Fraction,
        "the right answer with half a second more in expires_in: 7200.5",
    ),
    plain("string", FaultKind::String, "the right answer with expires_in as a string; valid"),
    plain("errzero", FaultKind::Errzero, "the right answer and errcode 0 beside it; valid"),
    plain("both", FaultKind::Both, "the right answer and errcode 40001 beside it: an error"),
];

const fn plain(name: &'static str, kind: FaultKind, about: &'static str) -> FaultEntry {
    FaultEntry { name, kind, number: None, about }
}

const fn numbered(
    name: &'static str,
    kind: FaultKind,
    number: (&'static str, i64),
    about: &'static str,
) -> FaultEntry {
    FaultEntry { name, kind, number: Some(number), about }
}

impl FaultEntry {
    /// Returns its syntax, as in the manual: `errcode:N`.
    pub(crate) fn form(&self) -> String {
        self.number
            .map_or(self.name.to_owned(), |(placeholder, _)| format!("{}:{placeholder}", self.name))
    }

    /// Returns an example that is valid input: `errcode:40164`.
    pub(crate) fn example(&self) -> String {
        self.number.map_or(self.name.to_owned(), |(_, example)| format!("{}:{example}", self.name))
    }

    /// Returns whether the fault takes this number: a final HTTP status, a wait of up to an hour, or an errcode.
    fn accepts(&self, number: i64) -> bool {
        match self.kind {
            FaultKind::Http => (200..=599).contains(&number),
            FaultKind::Slow => (1..=3600).contains(&number),
            _ => i32::try_from(number).is_ok(),
        }
    }
}

/// A fault that is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MockFault {
    pub(crate) kind: FaultKind,
    /// 0 if the kind takes none.
    pub(crate) number: i64,
    /// The calls that it applies to; `None` if to all.
    group: Option<CallGroup>,
    /// How many more calls it applies to; `None` until it is switched off.
    times: Option<u32>,
}

impl MockFault {
    /// Whether it applies to a call of this group; `None` for a call of no group.
    pub(crate) fn applies_to(self, group: Option<CallGroup>) -> bool {
        self.group.is_none() || self.group == group
    }

    /// Returns the fault as it is after one more call; `None` if that was the last.
    pub(crate) fn after_one_call(self) -> Option<MockFault> {
        match self.times {
            None => Some(self),
            Some(0 | 1) => None,
            Some(times) => Some(MockFault { times: Some(times - 1), ..self }),
        }
    }

    /// Parses `[CALLS/]KIND[:N][@TIMES]`, or `none`.
    pub(crate) fn parse_or_none(text: &str) -> Result<Option<MockFault>, String> {
        if text == "none" { Ok(None) } else { text.parse().map(Some) }
    }
}

impl FromStr for MockFault {
    type Err = String;

    fn from_str(text: &str) -> Result<MockFault, String> {
        let (group, text) = match text.split_once('/') {
            None => (None, text),
            Some((name, rest)) => {
                let known = CALL_GROUPS.iter().find(|(known, _)| *known == name);
                let (_, group) = known.ok_or(bilingual!(
                    "before /, the calls that it is to strike: expected token, probe, ticket or api",
                    "/ 之前应为请求的类别：token、probe、ticket 或 api"
                ))?;
                (Some(*group), rest)
            }
        };
        let (text, times) = match text.split_once('@') {
            None => (text, None),
            Some((text, times)) => {
                let times = times.parse().ok().filter(|times| *times > 0);
                (
                    text,
                    Some(times.ok_or(bilingual!(
                        "after @, how many calls it is to strike: expected a number from 1",
                        "@ 之后应为故障的次数，从 1 起"
                    ))?),
                )
            }
        };
        let (name, number) = match text.split_once(':') {
            None => (text, None),
            Some((name, number)) => (name, Some(number)),
        };
        let Some(entry) = FAULTS.iter().find(|entry| entry.name == name) else {
            let forms: Vec<String> = FAULTS.iter().map(FaultEntry::form).collect();
            let forms = forms.join(", ");
            return Err(in_both(
                format!("no such fault; there are {forms}"),
                format!("没有这种故障；可用的有 {forms}"),
            ));
        };
        let number = match (entry.number, number) {
            (None, None) => 0,
            (None, Some(_)) => {
                return Err(in_both(format!("{name} takes no number"), format!("{name} 不带数字")));
            }
            (Some(_), number) => number
                .and_then(|number| number.parse().ok())
                .filter(|number| entry.accepts(*number))
                .ok_or_else(|| {
                    let (form, example) = (entry.form(), entry.example());
                    in_both(
                        format!("expected {form}, like {example}"),
                        format!("应为 {form}，如 {example}"),
                    )
                })?,
        };
        Ok(MockFault { kind: entry.kind, number, group, times })
    }
}

impl fmt::Display for MockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = FAULTS.iter().find(|entry| entry.kind == self.kind);
        if let Some((name, _)) = CALL_GROUPS.iter().find(|(_, group)| Some(*group) == self.group) {
            write!(f, "{name}/")?;
        }
        f.write_str(entry.map_or("", |entry| entry.name))?;
        if entry.is_some_and(|entry| entry.number.is_some()) {
            write!(f, ":{}", self.number)?;
        }
        self.times.map_or(Ok(()), |times| write!(f, "@{times}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    #[test]
    fn the_example_of_every_fault_parses_and_is_displayed_as_typed() {
        for entry in FAULTS {
            let example = entry.example();
            let fault: MockFault = example.parse().unwrap_or_else(|err| panic!("{example}: {err}"));
            assert_eq!(fault.kind, entry.kind);
            assert_eq!(fault.to_string(), example);
            let twice = format!("{example}@2");
            assert_eq!(twice.parse::<MockFault>().unwrap().to_string(), twice);
        }
    }

    #[test]
    fn every_kind_is_in_the_table_once() {
        // `Both` is the last kind: the discriminants up to it are all there are.
        let kinds: Vec<usize> = FAULTS.iter().map(|entry| entry.kind as usize).collect();
        for kind in 0..=FaultKind::Both as usize {
            assert_eq!(kinds.iter().filter(|k| **k == kind).count(), 1, "kind {kind}");
        }
    }

    #[test]
    fn a_fault_without_times_lasts_and_one_with_times_is_used_up() {
        let lasting: MockFault = "errcode:-1".parse().unwrap();
        assert_eq!((lasting.number, lasting.after_one_call()), (-1, Some(lasting)));
        let twice: MockFault = "hang@2".parse().unwrap();
        assert_eq!(twice.after_one_call(), Some("hang@1".parse().unwrap()));
        assert_eq!(twice.after_one_call().and_then(MockFault::after_one_call), None);
        assert_eq!(MockFault::parse_or_none("none"), Ok(None));
    }

    #[test]
    fn a_fault_can_be_limited_to_a_group_of_calls() {
        let probes: MockFault = "probe/errcode:45009@2".parse().unwrap();
        assert_eq!(probes.to_string(), "probe/errcode:45009@2");
        assert!(probes.applies_to(Some(CallGroup::Probe)));
        assert!(!probes.applies_to(Some(CallGroup::Token)) && !probes.applies_to(None));
        let all: MockFault = "hang".parse().unwrap();
        assert!(all.applies_to(Some(CallGroup::Ticket)) && all.applies_to(None));
    }

    #[test]
    fn an_invalid_fault_is_refused_with_the_syntax() {
        let no = |text: &str| {
            let why = text.parse::<MockFault>().unwrap_err();
            Language::English.resolve(&why).into_owned()
        };
        for wrong in ["", "none", "Errcode:1", "hangs", "hang ", "errcode :1"] {
            assert!(
                no(wrong).starts_with(
                    "no such fault; there are errcode:N, http:STATUS, slow:SECONDS, hang,"
                ),
                "{wrong}"
            );
        }
        for wrong in ["errcode", "errcode:", "errcode:x", "errcode:99999999999", "errcode:1:2"] {
            assert_eq!(no(wrong), "expected errcode:N, like errcode:40164", "{wrong}");
        }
        for wrong in ["http:199", "http:600", "http:-1"] {
            assert_eq!(no(wrong), "expected http:STATUS, like http:502", "{wrong}");
        }
        for wrong in ["slow:0", "slow:3601", "slow:1s"] {
            assert_eq!(no(wrong), "expected slow:SECONDS, like slow:1", "{wrong}");
        }
        assert_eq!(no("hang:1"), "hang takes no number");
        for wrong in ["tokens/hang", "/hang", "none/hang"] {
            assert!(no(wrong).starts_with("before /"), "{wrong}");
        }
        for wrong in ["hang@", "hang@0", "hang@-1", "hang@often", "hang@1@2"] {
            assert!(no(wrong).starts_with("after @"), "{wrong}");
        }
    }
}
