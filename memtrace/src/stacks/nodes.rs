//! How many frames are remembered of all processes together: memory stays bounded, however many processes there are.

use super::{
    Stacks,
    tree::{MAX_ALL_NODES, Tree},
};

impl Stacks {
    /// Changes the tree of process `tgid`; counts what it grows by.
    pub(super) fn grow<T>(&mut self, tgid: u32, change: impl FnOnce(&mut Tree) -> T) -> T {
        let tree = &mut self.processes.entry(tgid).or_default().tree;
        let n_before = tree.len();
        let changed = change(tree);
        self.n_nodes += tree.len() - n_before;
        changed
    }

    /// Forgets what is remembered of frames where that is too much, before a stack of process `tgid` is walked.
    pub(super) fn start_anew_if_full(&mut self, tgid: u32) {
        if let Some(process) = self.processes.get_mut(&tgid).filter(|it| it.tree.is_full()) {
            process.forget_if(true);
            self.losses.anew += 1;
        }
        if self.n_nodes < MAX_ALL_NODES {
            return;
        }
        let living = self.processes.values();
        self.n_nodes = living.map(|process| process.tree.len()).sum();
        if self.n_nodes >= MAX_ALL_NODES {
            self.processes.values_mut().for_each(|process| process.forget_if(true));
            self.n_nodes = 0;
            self.losses.anew += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use memtrace_common::{Regs, ThreadRegisters};

    use super::{
        super::{MAX_FRAMES_OF_WALK, New, Quality},
        *,
    };

    const N_FRAMES: u64 = 1000;
    /// Outermost frames that tell stacks with different numbers apart.
    const N_BITS: u64 = 10;
    /// No process of this machine.
    const FIRST: u32 = 1 << 30;

    /// Resolves a stack of process `tgid`, one for each number; that process has the code of this one.
    fn resolve(stacks: &mut Stacks, tgid: u32, number: u64) {
        // At a function's first instruction the return address is on top of the stack.
        let functions = [libc::getpid as *const () as u64, libc::getppid as *const () as u64];
        let inner = (N_BITS + 1..N_FRAMES).map(|_| functions[0] + 1);
        let outermost = (0..N_BITS).map(|n| functions[(number >> n & 1) as usize] + 1);
        let stack: Vec<u8> = inner.chain(outermost).chain([0]).flat_map(u64::to_le_bytes).collect();
        let regs = Regs { ip: functions[0], sp: 0x7000_0000, ..Regs::default() };
        let thread = ThreadRegisters { regs, ..ThreadRegisters::default() };
        stacks.resolve_thread(tgid, 1, &thread, &stack, stack.len() as u64);
    }

    fn in_trees(stacks: &Stacks) -> usize {
        stacks.processes.values().map(|process| process.tree.len()).sum()
    }

    /// Some processes with the code of this one, and no stack yet.
    fn forked(n: u32) -> Stacks {
        let (mut stacks, own) = (Stacks::new(), std::process::id());
        stacks.refresh(own);
        (FIRST..FIRST + n).for_each(|tgid| stacks.fork(own, tgid));
        stacks
    }

    /// Resolves 100 stacks of process `tgid`, with almost as many times [`N_FRAMES`] nodes; never are there too many.
    fn fill(stacks: &mut Stacks, tgid: u32) {
        for number in 0..100 {
            resolve(stacks, tgid, number);
            assert!(in_trees(stacks) <= stacks.n_nodes);
            assert!(stacks.n_nodes < MAX_ALL_NODES + MAX_FRAMES_OF_WALK);
        }
    }

    /// As long as nothing is forgotten, what is counted is what there is, whoever's stacks they are, new ones or known.
    #[test]
    fn each_is_counted() {
        let mut stacks = forked(2);
        // (process, number of the stack, new nodes: the outermost frames are shared up to the first that differs)
        let cases =
            [(0, 0, 1000), (0, 1, 991), (0, 0, 0), (1, 0, 1000), (1, 512, 1000), (0, 3, 992)];
        let mut want = 0;
        for (n, number, n_new) in cases {
            resolve(&mut stacks, FIRST + n, number);
            want += n_new;
            assert_eq!((stacks.n_nodes, in_trees(&stacks)), (want, want), "{n} {number}");
        }
        let is_whole = |new: &New| match new {
            New::Stack(stack) => {
                stack.quality == Quality::Complete && stack.frames.len() as u64 == N_FRAMES
            }
            New::Frame(_) => false,
        };
        assert_eq!(stacks.take_new().iter().filter(|new| is_whole(new)).count(), 4);
    }

    /// What is remembered of frames is bounded for all processes together, and that it was forgotten is counted.
    #[test]
    fn many_processes() {
        let mut stacks = forked(10);
        (FIRST..FIRST + 10).for_each(|tgid| fill(&mut stacks, tgid));
        assert_eq!(stacks.losses.anew, 2);
        // Those of processes that have ended take no room.
        let mut stacks = forked(10);
        for tgid in FIRST..FIRST + 10 {
            fill(&mut stacks, tgid);
            stacks.exit(tgid);
        }
        assert_eq!((stacks.losses.anew, in_trees(&stacks)), (0, 0));
    }
}
