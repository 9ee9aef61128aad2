import argparse, sys, tempfile, time, traceback
from pathlib import Path
from .history import draw_history
from .run import Run
ap=argparse.ArgumentParser(); ap.add_argument("--seed",type=int,default=0); ap.add_argument("--histories",type=int,default=1); o=ap.parse_args()
wakes=0; began=time.process_time()
for s in range(o.seed,o.seed+o.histories):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as d:
        try:
            r=Run(draw_history(s),Path(d)).go(); wakes+=r.wakes
            print(s, r.wakes, r.asked, r.lives, dict(r.ended))
        except BaseException as e:
            print("SEED",s); traceback.print_exc(limit=8); break
print(wakes, time.process_time()-began)
