//! The fault script: its grammar and how a call finds what is in store for it. The crate's documentation
//! lists the rules.

use crate::abi::Code;
use crate::exports::Function;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A parsed script.
#[derive(Default)]
pub struct Script {
    pub rules: Vec<Rule>,
    pub abort_syncs_device: bool,
    pub no_destroy_barrier: bool,
    pub reshape_in_progress: bool,
    pub null_ops: bool,
    pub busy_ops: Option<Duration>,
    pub slow_jobs: Option<Duration>,
    pub version: Option<i32>,
    pub count: Option<i32>,
    /// What was wrong with the script; every call fails.
    pub mistake: Option<String>,
}

/// One rule: which calls, and what happens to them.
pub struct Rule {
    functions: Vec<Function>,
    rank: Option<i64>,
    when: RangeInclusive<u64>,
    fault: Fault,
    /// Calls that matched function and rank so far.
    seen: AtomicU64,
}

/// What happens to one call.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Returned instead of doing anything.
    pub error: Option<Code>,
    /// What the communicator's asynchronous error becomes.
    pub later: Option<Code>,
    /// The operation, job or call never completes by itself.
    pub hang: bool,
    /// The caller is held for that long.
    pub block: Option<Duration>,
    /// The kernel or job starts that much later.
    pub slow: Option<Duration>,
}

impl Fault {
    fn and(self, other: Fault) -> Fault {
        Fault {
            error: self.error.or(other.error),
            later: self.later.or(other.later),
            hang: self.hang || other.hang,
            block: self.block.or(other.block),
            slow: self.slow.or(other.slow),
        }
    }
}

impl Script {
    /// Reads a script. A mistake is kept in the script rather than returned: its consequence is at the calls.
    pub fn parse(text: &str) -> Script {
        let mut script = Script::default();
        for rule in text.split(';').map(str::trim).filter(|rule| !rule.is_empty()) {
            if let Err(mistake) = script.add(rule) {
                script.mistake = Some(format!("{mistake} in `{rule}`"));
                break;
            }
        }
        script
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        if text.contains('@') {
            self.rules.push(Rule::parse(text)?);
            return Ok(());
        }
        let (word, value) =
            text.split_once(['=', ':']).map_or((text, None), |(word, value)| (word, Some(value)));
        let flag = match word {
            "abort-syncs-device" => &mut self.abort_syncs_device,
            "no-destroy-barrier" => &mut self.no_destroy_barrier,
            "reshape-in-progress" => &mut self.reshape_in_progress,
            "null-ops" => &mut self.null_ops,
            _ => {
                let value = value.ok_or_else(|| String::from("unknown word"))?;
                match word {
                    "busy-ops" => self.busy_ops = Some(Duration::from_nanos(number(value)?)),
                    "slow-jobs" => self.slow_jobs = Some(Duration::from_millis(number(value)?)),
                    "version" => self.version = Some(number(value)?),
                    "count" => self.count = Some(number(value)?),
                    _ => return Err(String::from("unknown word")),
                }
                return Ok(());
            }
        };
        if value.is_some() {
            return Err(String::from("the word takes no value"));
        }
        *flag = true;
        Ok(())
    }

    /// What the rules have in store for this call. Each rule counts the calls that it matches.
    pub fn fault(&self, function: Function, rank: Option<i64>) -> Fault {
        let due = |rule: &&Rule| rule.matches(function, rank) && rule.is_due();
        self.rules.iter().filter(due).fold(Fault::default(), |fault, rule| fault.and(rule.fault))
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Rule, String> {
        let (target, rest) = text.split_once('@').ok_or("no `@`")?;
        let (when, actions) = rest.split_once('=').ok_or("no `=`")?;
        let (pattern, rank) = match target.split_once('/') {
            Some((pattern, rank)) => (pattern, Some(number(rank)?)),
            None => (target, None),
        };
        let named = |function: &Function| {
            let name = function.name();
            matches(pattern, name) || name.strip_prefix("Comm").is_some_and(|short| matches(pattern, short))
        };
        let functions: Vec<Function> = Function::ALL.iter().copied().filter(named).collect();
        if functions.is_empty() {
            return Err(format!("no function is called `{pattern}`"));
        }
        let mut fault = Fault::default();
        for action in actions.split('+') {
            fault = fault.and(parse_action(action.trim())?);
        }
        Ok(Rule { functions, rank, when: parse_when(when.trim())?, fault, seen: AtomicU64::new(0) })
    }

    fn matches(&self, function: Function, rank: Option<i64>) -> bool {
        self.functions.contains(&function) && (self.rank.is_none() || self.rank == rank)
    }

    fn is_due(&self) -> bool {
        self.when.contains(&(self.seen.fetch_add(1, Ordering::Relaxed) + 1))
    }
}

fn parse_when(text: &str) -> Result<RangeInclusive<u64>, String> {
    if text == "*" {
        return Ok(1..=u64::MAX);
    }
    let range = match text.strip_suffix('+') {
        Some(first) => number(first)?..=u64::MAX,
        None => match text.split_once('-') {
            Some((first, last)) => number(first)?..=number(last)?,
            None => number(text)?..=number(text)?,
        },
    };
    if *range.start() == 0 || range.is_empty() {
        return Err(format!("`{text}` names no call: calls are counted from 1"));
    }
    Ok(range)
}

fn parse_action(text: &str) -> Result<Fault, String> {
    if text == "hang" {
        return Ok(Fault { hang: true, ..Fault::default() });
    }
    let (name, value) = text.split_once(':').ok_or_else(|| format!("unknown action `{text}`"))?;
    let code = || match number(value)? {
        code @ 1..=8 => Ok(Some(code)),
        other => Err(format!("{other} is no error code")),
    };
    let milliseconds = || number(value).map(|value| Some(Duration::from_millis(value)));
    let fault = Fault::default();
    match name {
        "error" => Ok(Fault { error: code()?, ..fault }),
        "async" => Ok(Fault { later: code()?, ..fault }),
        "block" => Ok(Fault { block: milliseconds()?, ..fault }),
        "slow" => Ok(Fault { slow: milliseconds()?, ..fault }),
        _ => Err(format!("unknown action `{name}`")),
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is no number that fits"))
}

/// Whether a pattern with `*` for any characters names the function.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| matches(rest, &tail[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts_the_calls_that_it_matches() {
        let script = Script::parse("AllReduce@2=error:2; Send/1@*=hang+async:6 ;Abort@3+=block:7");
        assert_eq!(script.mistake, None);
        assert_eq!(script.fault(Function::AllReduce, Some(0)).error, None);
        assert_eq!(script.fault(Function::AllReduce, Some(0)).error, Some(2));
        assert_eq!(script.fault(Function::AllReduce, Some(0)).error, None);
        assert_eq!(script.fault(Function::Send, Some(0)), Fault::default());
        let fault = script.fault(Function::Send, Some(1));
        assert!(fault.hang && fault.later == Some(6));
        let aborts: Vec<_> =
            (0..4).map(|_| script.fault(Function::CommAbort, None).block.is_some()).collect();
        assert_eq!(aborts, [false, false, true, true]);
    }

    #[test]
    fn patterns_name_several_functions() {
        let script = Script::parse("CommInitRank*@1=error:2");
        assert_eq!(script.mistake, None);
        assert_eq!(script.fault(Function::CommInitRankConfig, None).error, Some(2));
        assert_eq!(script.fault(Function::CommInitRank, None).error, None);
        assert!(matches("*Rank*", "CommInitRank") && !matches("a*b", "ac"));
    }

    #[test]
    fn words_set_switches() {
        let script = Script::parse("null-ops;busy-ops:500;version=21903;abort-syncs-device;count=3");
        assert!(script.null_ops && script.abort_syncs_device && script.mistake.is_none());
        assert_eq!((script.version, script.count), (Some(21903), Some(3)));
        assert_eq!(script.busy_ops, Some(Duration::from_nanos(500)));
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = [
            "AllReduce@x=hang",
            "AllReduce@0=hang",
            "AllReduce@1=boom",
            "AllReduce@1=error:99",
            "Nothing@1=hang",
            "null-ops=1",
            "bla",
            "AllReduce@1",
            "AllReduce@3-2=hang",
            "version=x",
        ];
        for text in wrong {
            assert!(Script::parse(text).mistake.is_some(), "{text}");
        }
    }
}
