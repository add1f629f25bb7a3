//! Questions to whichever member of a cluster answers.

use super::http::{Failure, Http, Lines};
use super::message;
use crate::error::{Code, Error, Extent, Result};
use crate::store::Cluster;
use crate::store::address::shown_cluster;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::types::Secret;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long one member is waited for before another one is asked. After each round it is twice as long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pauses between rounds.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What came of it.
pub type Told<T> = std::result::Result<T, Unanswered>;

/// Why nothing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Refused, by gRPC's code and with these words. Nothing has been done.
    Refused(u64, String),
    /// More than is taken.
    TooLarge,
    /// Anything else.
    Failed(Error),
}

/// The members of a cluster.
pub struct Members {
    http: Http,
    /// The one that has answered last.
    current: AtomicUsize,
    user: Option<(String, Secret)>,
    token: Mutex<Option<String>>,
    name: String,
}

/// One attempt to get an answer.
pub struct Attempt<'a> {
    members: &'a Members,
    member: usize,
    token: Option<String>,
    /// When another member's turn comes.
    pub until: Instant,
    /// Whether an earlier attempt may have done what this one is about to do.
    pub doubtful: bool,
}

impl Attempt<'_> {
    /// One question, one answer.
    pub fn ask(&self, path: &str, question: &Value) -> std::result::Result<Value, Failure> {
        self.members.http.ask(self.member, path, self.token.as_deref(), question, self.until)
    }

    /// One question, many answers, until a time of the caller's; another member's turn comes if the first is late.
    pub fn stream(
        &self,
        path: &str,
        question: &Value,
        until: Instant,
    ) -> std::result::Result<Lines<'_>, Failure> {
        let token = self.token.as_deref();
        self.members.http.stream(self.member, path, token, question, self.until, until)
    }

    /// An answer that is none: not worth another attempt.
    pub fn nonsense(&self, what: crate::store::wire::Malformed) -> Failure {
        let name = self.members.http.name(self.member);
        let text = format!("store: {name} answers with {}", what.0);
        Failure::Final(Error::new(Code::System, Extent::Operation, text))
    }
}

impl Members {
    /// The members of this cluster. Connects to nobody.
    pub fn new(cluster: Cluster) -> Result<Members> {
        Ok(Members {
            http: Http::new(&cluster)?,
            current: AtomicUsize::new(0),
            name: shown_cluster(&cluster),
            user: cluster.user,
            token: Mutex::new(None),
        })
    }

    /// How the cluster is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As if the cluster had forgotten it.
    #[cfg(test)]
    pub fn spoil_token(&self) {
        *self.token.lock() = Some("spoilt".into());
    }

    /// One question that may be asked as often as need be.
    pub fn ask(&self, path: &str, question: &Value, deadline: Instant) -> Told<Value> {
        self.attempt(deadline, |attempt| attempt.ask(path, question))
    }

    /// Repeats `once`, member by member, until there is an answer.
    pub fn attempt<T>(
        &self,
        deadline: Instant,
        mut once: impl FnMut(&Attempt) -> std::result::Result<T, Failure>,
    ) -> Told<T> {
        let (mut pause, mut patience) = (FIRST_PAUSE, PATIENCE);
        let mut why = "the deadline has passed".to_string();
        let (mut doubtful, mut tokens, mut tried) = (false, 0, 0);
        // Of members that cannot be used at all, as for their certificates; others may be better.
        let mut hopeless = 0;
        loop {
            let now = Instant::now();
            if now >= deadline {
                let text = format!("store at {}: no answer in time: {why}", self.name);
                return Err(Unanswered::Failed(Error::timeout(text)));
            }
            let member = self.current.load(Ordering::Relaxed) % self.http.count();
            let until = deadline.min(now + patience);
            let attempt = Attempt { members: self, member, token: None, until, doubtful };
            let failure = match self.with_token(attempt, &mut once) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match failure {
                Failure::Refused(code, text) => return Err(Unanswered::Refused(code, text)),
                Failure::TooLarge => return Err(Unanswered::TooLarge),
                Failure::Final(e) => {
                    hopeless += 1;
                    if hopeless >= self.http.count() {
                        return Err(Unanswered::Failed(e));
                    }
                    why = e.text.to_string();
                }
                // It has expired, or the cluster has forgotten it; once more with a new one.
                Failure::Token if tokens < 3 && self.user.is_some() => {
                    tokens += 1;
                    *self.token.lock() = None;
                    continue;
                }
                Failure::Token => {
                    let text = "invalid user, password or token".to_string();
                    return Err(Unanswered::Refused(16, text));
                }
                Failure::Unsent(text) => why = text,
                Failure::Unknown(text) => {
                    doubtful = true;
                    why = text;
                }
            }
            tracing::debug!("store at {}: {why}", self.name);
            // Unless another thread has gone on already.
            let next = (member + 1) % self.http.count();
            let _ = self.current.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
            tried += 1;
            if tried % self.http.count() == 0 {
                std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
                pause = (pause * 2).min(LONGEST_PAUSE);
                patience *= 2;
                hopeless = 0;
            }
        }
    }

    fn with_token<T>(
        &self,
        mut attempt: Attempt,
        once: &mut impl FnMut(&Attempt) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        if let Some((name, password)) = &self.user {
            let known = self.token.lock().clone();
            attempt.token = match known {
                Some(token) => Some(token),
                None => {
                    let password = String::from_utf8_lossy(&password.0);
                    let question = message::authenticate(name, &password);
                    // Whether or not an attempt of this fails, nothing has been done.
                    let answer = attempt.ask("/v3/auth/authenticate", &question).map_err(|e| match e {
                        Failure::Unknown(text) => Failure::Unsent(text),
                        other => other,
                    });
                    match answer {
                        Ok(answer) => {
                            let token = answer.get("token").and_then(Value::as_str).map(str::to_string);
                            let token = token
                                .ok_or_else(|| attempt.nonsense(crate::store::wire::Malformed("no token")))?;
                            *self.token.lock() = Some(token.clone());
                            Some(token)
                        }
                        // A cluster that asks nobody who they are.
                        Err(Failure::Refused(9, text)) if text.contains("not enabled") => None,
                        Err(e) => return Err(e),
                    }
                }
            };
        }
        once(&attempt)
    }
}
