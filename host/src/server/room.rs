//! Who makes room when as many connections are open as there may be: the one that has waited for its client for the longest time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::transport::activity::Activity;

/// How long a connection has waited at least before it makes room. Who connects and asks is never that late.
const ROOM_AFTER: Duration = Duration::from_secs(1);

/// How many are looked for at a time: all connections are looked at for that, and a crowd of newcomers needs room for each.
const FOUND_MAX: usize = 64;

/// The open connections.
#[derive(Debug, Default)]
pub(crate) struct Room {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Activity>>,
    /// Who has waited for long, and since when; the longest last.
    found: Vec<(Instant, u64)>,
}

/// A connection's entry.
#[derive(Debug)]
pub(crate) struct Entry {
    room: Arc<Room>,
    number: u64,
}

impl Room {
    /// A connection is open for as long as its entry lives.
    pub(crate) fn enter(self: &Arc<Self>, activity: Arc<Activity>) -> Entry {
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, activity);
        Entry { room: self.clone(), number }
    }

    /// Asks the connection to end that has waited for its client for the longest time, if that is long enough. Whether there is one.
    pub(crate) fn make(&self) -> bool {
        let mut open = self.open();
        // Twice at the most: those of the last time may all have gone, or been busy since.
        for _ in 0..2 {
            while let Some((since, number)) = open.found.pop() {
                let waits = open.connections.get(&number).filter(|activity| activity.waits_since() == Some(since));
                if let Some(activity) = waits {
                    activity.ask_for_room();
                    return true;
                }
            }
            let Some(long_ago) = Instant::now().checked_sub(ROOM_AFTER) else { return false };
            let waiting =
                open.connections.iter().filter_map(|(number, activity)| Some((activity.waits_since()?, *number)));
            let mut found: Vec<_> = waiting.filter(|(since, _)| *since <= long_ago).collect();
            found.sort_unstable_by(|one, other| other.cmp(one));
            open.found = found.split_off(found.len().saturating_sub(FOUND_MAX));
        }
        false
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.room.open().connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    async fn is_asked(activity: &Activity) -> bool {
        timeout(Duration::ZERO, activity.asked_for_room()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_waited_for_the_longest_time_makes_room_and_no_busy_one() {
        let room = Arc::<Room>::default();
        let mut open = Vec::new();
        for _ in 0..3 {
            let activity = Activity::new();
            open.push((room.enter(activity.clone()), activity));
            advance(Duration::from_millis(10)).await;
        }
        assert!(!room.make(), "all of them are new");
        advance(ROOM_AFTER).await;
        open[0].1.begin();
        assert!(room.make());
        let mut asked = Vec::new();
        for (_, activity) in &open {
            asked.push(is_asked(activity).await);
        }
        assert_eq!(asked, [false, true, false]);
        drop(open.remove(1)); // it went
        open[0].1.end(); // its wait is a new one
        assert!(room.make() && is_asked(&open[1].1).await);
        drop(open.remove(1));
        assert!(!room.make(), "the last one has only just begun to wait");
    }
}
