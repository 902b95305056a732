import pytest

from otus.errors import DataError
from otus.site import Site, load_site, site_file


@pytest.fixture
def home(tmp_path):
    """An environment whose home is empty."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home")}


def test_without_file_and_variables_the_defaults_hold(home, tmp_path):
    assert load_site(home, tmp_path) == Site()


def test_a_variable_wins_over_the_file(home, tmp_path):
    (tmp_path / "site.yaml").write_text("account: birds\ncpu_partition: standard\njobs: 10\n")
    site = load_site({**home, "OTUS_SLURM_ACCOUNT": "owls", "OTUS_SLURM_MAX_GPUS": "3"}, tmp_path)
    assert (site.account, site.cpu_partition, site.jobs, site.max_gpus) == ("owls", "standard", 10, 3)


def test_an_empty_variable_says_nothing(home, tmp_path):
    assert load_site({**home, "OTUS_SLURM_ACCOUNT": ""}, tmp_path).account is None


def test_the_file_is_looked_for_here_then_at_home(home, tmp_path):
    mine = tmp_path / "home" / ".config" / "otus" / "site.yaml"
    assert site_file(home, tmp_path) is None
    mine.parent.mkdir(parents=True)
    mine.write_text("account: home\n")
    assert site_file(home, tmp_path) == mine
    (tmp_path / "site.yaml").write_text("account: here\n")
    assert load_site(home, tmp_path).account == "here"
    named = tmp_path / "other.yaml"
    named.write_text("account: named\n")
    assert load_site({**home, "OTUS_SITE": str(named)}, tmp_path).account == "named"


def test_a_named_file_that_is_missing_is_an_error(home, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.yaml"):
        load_site({**home, "OTUS_SITE": str(tmp_path / "nowhere.yaml")}, tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("acount: x\n", r"site\.yaml: unknown site key 'acount'; did you mean 'account'\?"),
        ("zzz: x\n", "unknown site key 'zzz'; valid keys: account"),
        ("jobs: many\n", r"site\.yaml: jobs: "),
        ("jobs: 0\n", "jobs: .*greater than or equal to 1"),
        ("gres: gpu:2\n", "gres: gpu:2 does not ask for one GPU"),
        ("gres: gpu:1\ngpu_model: a100\n", "give gres or gpu_model, not both"),
        ("status_command: scontrol\n", "status_command"),
        ("- a\n- b\n", "mapping of keys"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(home, tmp_path, text, sentence):
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(DataError, match=sentence) as caught:
        load_site(home, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_variable_names_the_variable(home, tmp_path):
    with pytest.raises(DataError, match=r"OTUS_SLURM_PARTITON: unknown site key 'partiton'"):
        load_site({**home, "OTUS_SLURM_PARTITON": "x"}, tmp_path)
    with pytest.raises(DataError, match="OTUS_SLURM_POLL_S: poll_s"):
        load_site({**home, "OTUS_SLURM_POLL_S": "soon"}, tmp_path)


@pytest.mark.parametrize("form", ["gpu:1", "gpu:a100:1", "gpu:a100_80gb.2g-x:1"])
def test_forms_of_gres(form):
    assert Site(gres=form).gres == form
