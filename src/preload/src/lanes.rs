//! Tasks of a group, which wait for the same tasks on other ranks: side by side, except those of one parent, whose ranks
//! do what they do with it in the same order.

use crate::boundary::caught;
use multiworld::error::Result;

/// Runs all of them, also after an error: the other ranks do not know of it. `parent` tells which must keep their order.
pub fn run_all<T: Send, P: PartialEq + Send>(
    tasks: Vec<T>,
    parent: impl Fn(&T) -> Option<P>,
    run: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let mut lanes: Vec<(Option<P>, Vec<T>)> = Vec::new();
    for task in tasks {
        let key = parent(&task);
        match lanes.iter_mut().find(|(of, _)| of.is_some() && *of == key) {
            Some((_, lane)) => lane.push(task),
            None => lanes.push((key, vec![task])),
        }
    }
    let run = |lane: Vec<T>| lane.into_iter().map(&run).fold(Ok(()), Result::and);
    let run = &run;
    let last = lanes.pop();
    std::thread::scope(|s| {
        let threads: Vec<_> = lanes.into_iter().map(|(_, lane)| s.spawn(move || run(lane))).collect();
        let mine = last.map_or(Ok(()), |(_, lane)| run(lane));
        let theirs = threads.into_iter().map(|t| t.join().unwrap_or_else(|payload| Err(caught(payload))));
        theirs.fold(Ok(()), Result::and).and(mine)
    })
}
