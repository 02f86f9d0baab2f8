use memtrace::{jvm::*, target::maps};
use std::rc::Rc;
fn main() {
    let pid: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let memory = Rc::new(LiveMemory::new(pid));
    let maps = maps::read(pid).unwrap();
    let mut vm = Vm::open(memory.clone(), libjvm(&maps).unwrap()).unwrap();
    let mut code = JavaCode::new(&vm).unwrap();
    for n in 1..6 {
        let t = std::time::Instant::now();
        let c = code.observe(n).unwrap();
        println!(
            "observe {:?} new {} gone {} {:?}",
            t.elapsed(),
            c.n_new,
            c.gone.len(),
            code.size()
        );
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let th = vm.java_threads().unwrap();
    // copy stacks
    let mut stacks = vec![];
    for t in &th {
        memory.forget();
        let Some(r) = code.last_java_frame(&vm, t) else { continue };
        let mut bytes = vec![];
        for n in 0..128 {
            match memory.u64(r.sp + 8 * n - 64) {
                Ok(w) => bytes.push(w),
                Err(_) => break,
            }
        }
        stacks.push((r, bytes));
    }
    let t = std::time::Instant::now();
    let (mut n, mut frames) = (0u64, 0u64);
    while t.elapsed().as_millis() < 1000 {
        for _ in 0..100 {
            for (r, words) in &stacks {
                let base = r.sp - 64;
                let stack = |a: u64| words.get((a.wrapping_sub(base) / 8) as usize).copied();
                let mut at = *r;
                n += 1;
                loop {
                    let Ok(step) = code.step(at, 100, &stack) else { break };
                    frames += 1;
                    if step.frame == FrameKey::Entry {
                        break;
                    }
                    at = step.caller;
                }
            }
        }
    }
    println!(
        "{} stacks, {} frames, {:.1} ns/frame",
        n,
        frames,
        t.elapsed().as_nanos() as f64 / frames as f64
    );
    if std::env::args().nth(2).is_none() {
        return;
    }
    for t in &th {
        println!("{:?} {} {:?}", t.name, t.nid, t.carries);
        memory.forget();
        let stack = |a: u64| memory.u64(a).ok();
        let mut at = code.last_java_frame(&vm, t);
        while let Some(r) = at {
            let step = match code.step(r, 10, &stack) {
                Ok(s) => s,
                Err(e) => {
                    println!("  !! {e:?} {r:x?}");
                    break;
                }
            };
            for f in code.frames(step.frame) {
                println!("  {}.{}({:?}:{:?}) {:?}", f.class, f.method, f.file, f.line, f.execution);
            }
            if let Some(l) = code.label(step.frame) {
                println!("  {l}");
            }
            if step.certainty == Certainty::Approximate {
                println!("  ~~~");
            }
            at = Some(step.caller);
            if step.frame == FrameKey::Entry {
                at = code.before_entry(r.fp, &stack);
            }
        }
    }
}
