"""The mathematics: log-probs, KL, rewards, advantages, loss, and the stages as data.

Arrays in, arrays out: nothing here opens a file, draws a random number or calls a model. Every
function can be checked by hand on the smallest example in its docstring.
"""
