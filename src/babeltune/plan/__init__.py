"""What a grid would take, said before anything is trained: `python train.py plan=true`.

asking       the command's side, without torch: which cells there are, what is done, the printed tables
measuring    a process of its own: prepares the mixes, counts parameters, steps and items, asks for calibrations
calibrating  another, started by __main__: real steps of a base of random weights, timed and weighed
"""
