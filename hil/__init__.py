"""Hardware-in-the-loop rig: replays recordings into meters and judges what comes out."""
