"""Chat templates: the filters and globals that published ones rely on."""

from small_models import CHATML

from score_jax.tokenizers.chat_template import ChatTemplate


def test_template_environment():
  extra = (
    "{{ {'a': '<é>'} | tojson }}{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}"
    "{{ i }}{% endfor %}{% generation %}g{{ bos_token }}{% endgeneration %}{{ strftime_now('%%') }}"
    '\n  {% if true %}\nt\n  {% endif %}\n'
  )
  text = ChatTemplate(CHATML + extra, {'bos_token': '<bos>'}).render([])
  assert text == '{"a": "<é>"}1g<bos>%\nt\n'
  scoped = '{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}'
  assert ChatTemplate(scoped).render([]) == '21'
