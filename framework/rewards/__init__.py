"""What a policy may be trained on: `reward=gold|proxy|composite|graders|judge`. Evaluation is always by the domain's own reward."""
