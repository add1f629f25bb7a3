//! What is said to etcd and what it answers, as its JSON gateway has it. No I/O.
//!
//! Keys and values are base64, 64-bit numbers are strings, and what is empty or zero is left out.

use super::super::wire::Malformed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

type Read<T> = Result<T, Malformed>;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Revision of the last change.
    pub modified: u64,
}

/// Which keys are meant.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// This one.
    One(&'a [u8]),
    /// All that begin so. Not empty.
    Under(&'a [u8]),
}

impl Keys<'_> {
    fn json(&self) -> Value {
        match self {
            Keys::One(key) => json!({ "key": text(key) }),
            Keys::Under(prefix) => json!({ "key": text(prefix), "range_end": text(&end_of(prefix)) }),
        }
    }
}

/// The first key behind all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // To the end of all keys.
    vec![0]
}

fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Asks for keys and values.
pub fn range(keys: Keys) -> Value {
    keys.json()
}

/// Asks how many keys there are.
pub fn count(keys: Keys) -> Value {
    with(keys.json(), "count_only", json!(true))
}

/// As a step of a transaction: asks for keys and values.
pub fn range_step(keys: Keys) -> Value {
    json!({ "request_range": keys.json() })
}

/// As a step of a transaction: sets a key.
pub fn put_step(key: &[u8], value: &[u8], lease: u64) -> Value {
    json!({ "request_put": { "key": text(key), "value": text(value), "lease": lease.to_string() } })
}

/// As a step of a transaction: deletes keys.
pub fn delete_step(keys: Keys) -> Value {
    json!({ "request_delete_range": keys.json() })
}

/// That a key has this value, or does not exist.
pub fn holds(key: &[u8], value: Option<&[u8]>) -> Value {
    match value {
        Some(value) => {
            json!({ "key": text(key), "target": "VALUE", "result": "EQUAL", "value": text(value) })
        }
        None => json!({ "key": text(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0" }),
    }
}

/// That a key was last changed at this revision; 0: that it does not exist.
pub fn unchanged(key: &[u8], modified: u64) -> Value {
    let modified = modified.to_string();
    json!({ "key": text(key), "target": "MOD", "result": "EQUAL", "mod_revision": modified })
}

/// A transaction.
pub fn transaction(compare: Vec<Value>, success: Vec<Value>, failure: Vec<Value>) -> Value {
    json!({ "compare": compare, "success": success, "failure": failure })
}

/// Asks for a lease of `seconds`.
pub fn grant(id: u64, seconds: u64) -> Value {
    json!({ "ID": id.to_string(), "TTL": seconds.to_string() })
}

/// Names a lease.
pub fn lease(id: u64) -> Value {
    json!({ "ID": id.to_string() })
}

/// Asks for the changes from a revision on, or from now on.
pub fn watch(keys: Keys, from: Option<u64>) -> Value {
    let keys = keys.json();
    let request = match from {
        Some(from) => with(keys, "start_revision", json!(from.to_string())),
        None => keys,
    };
    json!({ "create_request": request })
}

/// Proves who one is.
pub fn authenticate(name: &str, password: &str) -> Value {
    json!({ "name": name, "password": password })
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.insert(field.into(), value);
    }
    object
}

/// A number, which is 0 where it is left out.
pub fn number(of: &Value, field: &str) -> Read<u64> {
    match of.get(field) {
        None | Some(Value::Null) => Ok(0),
        Some(Value::String(digits)) => digits.parse().map_err(|_| Malformed("a number that is none")),
        Some(n) => n.as_u64().ok_or(Malformed("a number that is none")),
    }
}

fn bytes(of: &Value, field: &str) -> Read<Vec<u8>> {
    match of.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => STANDARD.decode(text).map_err(|_| Malformed("bytes that are no base64")),
        Some(_) => Err(Malformed("bytes that are no base64")),
    }
}

fn list<'a>(of: &'a Value, field: &str) -> Read<&'a [Value]> {
    match of.get(field) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Malformed("something in place of a list")),
    }
}

/// The cluster's revision when it answered.
pub fn revision(answer: &Value) -> Read<u64> {
    match number(answer.get("header").ok_or(Malformed("no header"))?, "revision")? {
        0 => Err(Malformed("no revision")),
        revision => Ok(revision),
    }
}

/// The keys and values of an answer.
pub fn pairs(answer: &Value) -> Read<Vec<Pair>> {
    let pair = |kv: &Value| {
        Ok(Pair { key: bytes(kv, "key")?, value: bytes(kv, "value")?, modified: number(kv, "mod_revision")? })
    };
    list(answer, "kvs")?.iter().map(pair).collect()
}

/// What has come of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether all comparisons were true.
    pub succeeded: bool,
    /// The revision after it.
    pub revision: u64,
    /// What each step that asked for keys has found.
    pub found: Vec<Vec<Pair>>,
    /// Keys deleted by all steps.
    pub deleted: u64,
}

/// Reads the answer to a transaction.
pub fn outcome(answer: &Value) -> Read<Outcome> {
    let succeeded = match answer.get("succeeded") {
        None => false,
        Some(b) => b.as_bool().ok_or(Malformed("something in place of a truth value"))?,
    };
    let mut outcome = Outcome { succeeded, revision: revision(answer)?, found: Vec::new(), deleted: 0 };
    for response in list(answer, "responses")? {
        if let Some(range) = response.get("response_range") {
            outcome.found.push(pairs(range)?);
        }
        if let Some(deleted) = response.get("response_delete_range") {
            outcome.deleted += number(deleted, "deleted")?;
        }
    }
    Ok(outcome)
}

/// One line of a stream.
pub fn result(line: &Value) -> Read<&Value> {
    line.get("result").ok_or(Malformed("a line without a result"))
}

/// What a line of a watch says.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It has begun.
    Begun,
    /// Something has changed, or may have.
    Changed,
    /// It was ended, and why.
    Ended(String),
    /// Nothing.
    Nothing,
}

/// Reads a line of a watch.
pub fn news(line: &Value) -> Read<News> {
    let result = result(line)?;
    if result.get("canceled").and_then(Value::as_bool) == Some(true) {
        // What lies so far back is not known any more.
        if number(result, "compact_revision")? > 0 {
            return Ok(News::Changed);
        }
        let why = result.get("cancel_reason").and_then(Value::as_str).unwrap_or("without a reason");
        return Ok(News::Ended(why.into()));
    }
    if !list(result, "events")?.is_empty() {
        return Ok(News::Changed);
    }
    match result.get("created").and_then(Value::as_bool) {
        Some(true) => Ok(News::Begun),
        _ => Ok(News::Nothing),
    }
}

/// Code and text of a refusal, in any of the forms that versions of the gateway give it.
pub fn refusal(answer: &Value) -> Option<(u64, String)> {
    let inner = answer.get("error").filter(|e| e.is_object()).unwrap_or(answer);
    let code = inner.get("grpc_code").or_else(|| inner.get("code"))?.as_u64()?;
    let text = inner.get("message").or_else(|| inner.get("error"))?.as_str()?;
    Some((code, text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_behind_their_last_key() {
        assert_eq!(end_of(b"a/"), b"a0");
        assert_eq!(end_of(b"a\xff\xff"), b"b");
        assert_eq!(end_of(b"\xff"), [0]);
    }

    #[test]
    fn answers_are_read() {
        let answer = json!({
            "header": { "revision": "7" },
            "succeeded": true,
            "responses": [
                { "response_put": {} },
                { "response_range": { "kvs": [{ "key": "aw==", "mod_revision": "3" }], "count": "1" } },
                { "response_range": {} },
                { "response_delete_range": { "deleted": "2" } },
            ],
        });
        let pair = Pair { key: b"k".to_vec(), value: vec![], modified: 3 };
        let expected = Outcome { succeeded: true, revision: 7, found: vec![vec![pair], vec![]], deleted: 2 };
        assert_eq!(outcome(&answer).unwrap(), expected);
        assert!(!outcome(&json!({ "header": { "revision": "7" } })).unwrap().succeeded);
        let line = |result: Value| news(&json!({ "result": result })).unwrap();
        assert_eq!(line(json!({ "header": { "revision": "9" }, "created": true })), News::Begun);
        assert_eq!(line(json!({ "events": [{ "type": "DELETE" }] })), News::Changed);
        assert_eq!(line(json!({ "canceled": true, "compact_revision": "5" })), News::Changed);
        assert_eq!(line(json!({ "canceled": true, "cancel_reason": "x" })), News::Ended("x".into()));
        assert_eq!(line(json!({})), News::Nothing);
    }

    #[test]
    fn refusals_of_all_versions_are_read() {
        for answer in [
            json!({ "error": "no", "message": "no", "code": 5 }),
            json!({ "error": "no", "code": 5 }),
            json!({ "code": 5, "message": "no", "details": [] }),
            json!({ "error": { "grpc_code": 5, "http_code": 404, "message": "no" } }),
        ] {
            assert_eq!(refusal(&answer), Some((5, "no".into())), "{answer}");
        }
        assert_eq!(refusal(&json!({ "error": 3 })), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        for answer in [
            json!(null),
            json!([]),
            json!({ "header": 3 }),
            json!({ "header": { "revision": "x" } }),
            json!({ "header": { "revision": -1 } }),
            json!({ "header": { "revision": "1" }, "succeeded": "yes" }),
            json!({ "header": { "revision": "1" }, "responses": {} }),
            json!({ "header": { "revision": "1" }, "responses": [{ "response_range": { "kvs": [{ "key": 1 }] } }] }),
            json!({ "header": { "revision": "1" }, "responses": [{ "response_range": { "kvs": [{ "key": "?" }] } }] }),
        ] {
            assert!(outcome(&answer).is_err(), "{answer}");
        }
        assert!(news(&json!({})).is_err());
        assert!(news(&json!({ "result": { "events": 1 } })).is_err());
    }
}
