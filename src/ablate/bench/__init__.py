"""What things cost: parameters and multiply-accumulates of networks, beside what their authors' code counts.

`models` counts every named hybrid and host and keeps the golden figures. Used by the command line
only. Start reading in `models.count`.
"""
