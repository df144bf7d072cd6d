"""Pipelines: definitions kept and run, a step at a time, by the operations that anybody may call.

    definition    a document read and checked: parameters, steps, what each needs before it
      -> execution    one run of it, on a thread of its own: which step is next, what became of each
           -> expressions    what a step's arguments say once the steps before it are over
           -> steps          a step carried out by the operation of its kind
    rules         what a rule of EventBridge does with an event: a pipeline among its targets is started

Rule: a kind of step, or a word in one, that is not played fails the execution with its name before anything is started.
"""
