//! Requests to one member of a cluster and its answers, each by a deadline.

use super::message;
use super::tls;
use crate::error::{Code, Error, Extent, Result};
use crate::store::Cluster;
use crate::store::wire::MAX_ANSWER;
use crate::sys::socket;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read};
use std::time::{Duration, Instant};
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, BodyReader, Timeout};

/// Longest answer, and longest line of a stream: base64 and JSON make bytes longer.
const MAX_BODY: u64 = 2 * MAX_ANSWER as u64;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing has been done, and another member may do it.
    Unsent(String),
    /// It may have been done; another member may know.
    Unknown(String),
    /// The member does not know the token, or not any more.
    Token,
    /// Refused, by gRPC's code and with these words.
    Refused(u64, String),
    /// More than is taken.
    TooLarge,
    /// Not to be repeated.
    Final(Error),
}

/// What carries requests to the members of a cluster.
pub struct Http {
    agent: Agent,
    /// `http://host:port`, of each member.
    members: Vec<String>,
}

/// Finds addresses as the rest of the library does, without threads for those that are numbers.
#[derive(Debug)]
struct Resolve;

impl Resolver for Resolve {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().ok_or(ureq::Error::HostNotFound)?;
        let found = socket::resolve(host, port, Instant::now() + *timeout.after);
        let found = found.map_err(|e| match e.code {
            Code::Timeout => ureq::Error::Timeout(Timeout::Resolve),
            _ => ureq::Error::HostNotFound,
        })?;
        let mut out = self.empty();
        found.into_iter().take(8).for_each(|addr| out.push(addr));
        Ok(out)
    }
}

impl Http {
    /// For the members of this cluster. Reads certificates, connects to nobody.
    pub fn new(cluster: &Cluster) -> Result<Http> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // Not what the environment says about the web.
            .proxy(None)
            .user_agent(concat!("multiworld/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls::config(cluster.tls)?)
            .build();
        let scheme = if cluster.tls { "https" } else { "http" };
        let member = |(host, port): &(String, u16)| match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}"),
            false => format!("{scheme}://{host}:{port}"),
        };
        Ok(Http {
            agent: Agent::with_parts(config, DefaultConnector::default(), Resolve),
            members: cluster.endpoints.iter().map(member).collect(),
        })
    }

    /// How many members there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// How a member is called.
    pub fn name(&self, member: usize) -> &str {
        self.members.get(member).map_or("nobody", |m| m)
    }

    /// One question, one answer.
    pub fn ask(
        &self,
        member: usize,
        path: &str,
        token: Option<&str>,
        question: &Value,
        until: Instant,
    ) -> std::result::Result<Value, Failure> {
        let mut response = self.send(member, path, token, question, until, until)?;
        let mut body = Vec::new();
        let read = response.body_mut().with_config().limit(MAX_BODY).reader().read_to_end(&mut body);
        if let Err(e) = read {
            return Err(self.unread(member, e));
        }
        self.understood(member, response.status().as_u16(), path, &body)
    }

    /// One question, many answers: the first by `first`, all by `until`.
    pub fn stream(
        &self,
        member: usize,
        path: &str,
        token: Option<&str>,
        question: &Value,
        first: Instant,
        until: Instant,
    ) -> std::result::Result<Lines<'_>, Failure> {
        let response = self.send(member, path, token, question, first, until)?;
        let (parts, body) = response.into_parts();
        // The limit is of each line, and no stream is kept for long.
        let reader = BufReader::new(body.into_with_config().limit(u64::MAX).reader());
        Ok(Lines { http: self, member, path: path.to_string(), status: parts.status.as_u16(), reader })
    }

    fn send(
        &self,
        member: usize,
        path: &str,
        token: Option<&str>,
        question: &Value,
        first: Instant,
        until: Instant,
    ) -> std::result::Result<Response<Body>, Failure> {
        let now = Instant::now();
        let left = until.saturating_duration_since(now);
        if left < Duration::from_millis(1) {
            return Err(Failure::Unsent("the time was up".into()));
        }
        let first = first.saturating_duration_since(now).max(Duration::from_millis(1));
        let mut request = self
            .agent
            .post(format!("{}{path}", self.name(member)))
            .config()
            .timeout_global(Some(left))
            .timeout_connect(Some(first))
            .timeout_recv_response(Some(first))
            .build()
            .header("Content-Type", "application/json")
            // What a member says that has no leader is out of date.
            .header("Grpc-Metadata-hasleader", "true");
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        request.send(question.to_string().as_bytes()).map_err(|e| self.unanswered(member, e))
    }

    fn unanswered(&self, member: usize, e: ureq::Error) -> Failure {
        let text = format!("{}: {e}", self.name(member));
        match e {
            ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound
            | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => Failure::Unsent(text),
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => Failure::Unsent(text),
            // Of a handshake, with a certificate that will not get better.
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => failed(text),
            ureq::Error::Io(e) if e.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => failed(text),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => failed(text),
            _ => Failure::Unknown(text),
        }
    }

    fn unread(&self, member: usize, e: io::Error) -> Failure {
        match ureq::Error::from(e) {
            ureq::Error::BodyExceedsLimit(_) => Failure::TooLarge,
            e => Failure::Unknown(format!("{}: {e}", self.name(member))),
        }
    }

    /// Sorts answers from refusals.
    fn understood(
        &self,
        member: usize,
        status: u16,
        path: &str,
        body: &[u8],
    ) -> std::result::Result<Value, Failure> {
        let name = self.name(member);
        let answer = serde_json::from_slice::<Value>(body);
        if let Some((code, text)) = answer.as_ref().ok().and_then(message::refusal) {
            return Err(refused(name, code, text));
        }
        match (status, answer) {
            (200, Ok(answer)) => Ok(answer),
            (200, Err(e)) => Err(failed(format!("{name} answers what is no JSON ({e})"))),
            // Of something in between.
            (502..=504, _) => Err(Failure::Unknown(format!("{name} answers with status {status}"))),
            _ => Err(failed(format!(
                "{name} answers with status {status} to {path}; is that etcd 3.4 or later?"
            ))),
        }
    }
}

fn failed(text: String) -> Failure {
    Failure::Final(Error::new(Code::System, Extent::Operation, format!("store: {text}")))
}

fn refused(name: &str, code: u64, text: String) -> Failure {
    const UNKNOWN: u64 = 2;
    const DEADLINE_EXCEEDED: u64 = 4;
    const RESOURCE_EXHAUSTED: u64 = 8;
    const INTERNAL: u64 = 13;
    const UNAVAILABLE: u64 = 14;
    const UNAUTHENTICATED: u64 = 16;
    match code {
        UNAUTHENTICATED => Failure::Token,
        RESOURCE_EXHAUSTED if text.contains("too many requests") => {
            Failure::Unsent(format!("{name}: {text}"))
        }
        // A leader that was lost may have done it before.
        UNKNOWN | DEADLINE_EXCEEDED | INTERNAL | UNAVAILABLE => Failure::Unknown(format!("{name}: {text}")),
        _ => Failure::Refused(code, text),
    }
}

/// Answers that come one after the other, one in each line.
pub struct Lines<'a> {
    http: &'a Http,
    member: usize,
    path: String,
    status: u16,
    reader: BufReader<BodyReader<'static>>,
}

impl Lines<'_> {
    /// The next one. `None` when the time is up.
    pub fn next(&mut self) -> std::result::Result<Option<Value>, Failure> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(MAX_BODY).read_until(b'\n', &mut line);
        match read.map_err(ureq::Error::from) {
            Err(ureq::Error::Timeout(_)) => return Ok(None),
            Err(e) => return Err(self.http.unread(self.member, e.into_io())),
            Ok(0) => {
                return Err(Failure::Unknown(format!("{} ended a stream", self.http.name(self.member))));
            }
            Ok(_) if line.len() as u64 >= MAX_BODY => return Err(Failure::TooLarge),
            Ok(_) => {}
        }
        self.http.understood(self.member, self.status, &self.path, &line).map(Some)
    }
}
