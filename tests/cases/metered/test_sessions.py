"""Charging sessions of several networks become the same visits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from owners import HOME, KWH, save, table

from iquitos_rl.cases.metered.importer import Files, import_case
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.sessions import ChargerOptions, Session, read_sessions
from iquitos_rl.cases.metered.zone import fixed_zone
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.errors import UserError

UTC1 = fixed_zone(1.0)
ACN = {
    "_items": [
        {
            "connectionTime": "Mon, 04 Mar 2024 06:41:00 GMT",
            "disconnectTime": "Mon, 04 Mar 2024 15:02:00 GMT",
            "doneChargingTime": "Mon, 04 Mar 2024 10:00:00 GMT",
            "kWhDelivered": 18.4,
            "stationID": "S-1",
            "userInputs": [{"kWhRequested": 20.0, "WhPerMile": 250}],
        },
        {
            "connectionTime": "Mon, 04 Mar 2024 17:05:00 GMT",
            "disconnectTime": "Tue, 05 Mar 2024 05:30:00 GMT",
            "doneChargingTime": None,
            "kWhDelivered": 9.9,
            "stationID": "S-2",
            "userInputs": None,
        },
    ]
}
OCPI = {
    "data": [
        {
            "id": "1",
            "start_date_time": "2024-03-04T06:41:00Z",
            "end_date_time": "2024-03-04T15:02:00Z",
            "total_energy": 18.4,
            "total_cost": {"excl_vat": 4.0},
            "cdr_location": {"evse_uid": "S-1", "coordinates": {"latitude": "50.0"}},
        },
        {
            "id": "2",
            "start_date_time": "2024-03-04T17:05:00Z",
            "end_date_time": "2024-03-05T05:30:00Z",
            "total_energy": 9.9,
            "cdr_location": {"evse_uid": "S-2", "coordinates": {"latitude": "50.0"}},
        },
    ]
}
OCPP = [
    {
        "transactionId": n,
        "chargePointId": station,
        "startTimestamp": begin,
        "stopTimestamp": end,
        "meterStart": 1000,
        "meterStop": 1000 + wh,
    }
    for n, (station, begin, end, wh) in enumerate(
        [
            ("S-1", "2024-03-04T06:41:00Z", "2024-03-04T15:02:00Z", 18400),
            ("S-2", "2024-03-04T17:05:00Z", "2024-03-05T05:30:00Z", 9900),
        ]
    )
]
FORMS = {
    "plain.csv": "arrival,departure,requested_energy (kWh),delivered_energy (kWh),station_id\n"
    "2024-03-04 07:41:00+01:00,2024-03-04 16:02:00+01:00,20.0,18.4,S-1\n"
    "2024-03-04 18:05:00+01:00,2024-03-05 06:30:00+01:00,12.0,9.9,S-2\n",
    "acn.json": json.dumps(ACN),
    "ocpi.json": json.dumps(OCPI),
    "ocpp.json": json.dumps(OCPP),
    "elaad.csv": "TransactionId;ChargePoint;Connector;UTCTransactionStart;UTCTransactionStop;StartCard;ConnectedTime;"
    "ChargeTime;TotalEnergy;MaxPower\n"
    "1;S-1;1;2024-03-04 06:41:00;2024-03-04 15:02:00;A;8,35;3,1;18,4;3,7\n"
    "2;S-2;1;2024-03-04 17:05:00;2024-03-05 05:30:00;B;12,4;3;9,9;3,7\n",
    "dundee.csv": "Charging event,User ID,CP ID,Connector,Start Date,Start Time,End Date,End Time,Total "
    "kWh,Cost,Site,Model\n"
    "1,A,S-1,1,04/03/2024,07:41,04/03/2024,16:02,18.4,0,Street,APT 7kW\n"
    "2,B,S-2,1,04/03/2024,18:05,05/03/2024,06:30,9.9,0,Street,APT 7kW\n",
    "palo_alto.csv": "Station Name,MAC Address,Org Name,Start Date,Start Time Zone,End Date,End Time Zone,"
    "Total Duration (hh:mm:ss),Charging Time (hh:mm:ss),Energy (kWh),GHG Savings (kg),Gasoline Savings "
    "(gallons),Port Type\n"
    "S-1,000:1,City,3/3/2024 22:41,PST,3/4/2024 7:02,PST,8:21:00,3:00:00,18.4,5.0,1.0,Level 2\n"
    "S-2,000:2,City,3/4/2024 9:05,PST,3/4/2024 21:30,PST,12:25:00,3:00:00,9.9,3.0,0.5,Level 2\n",
    "boulder.csv": "ObjectID,Station_Name,Address,Start_Date___Time,Start_Time_Zone,End_Date___Time,End_Time_Zone,"
    "Total_Duration__hh_mm_ss_,Charging_Time__hh_mm_ss_,Energy__kWh_,GHG_Savings__kg_\n"
    "1,S-1,Street,2024/03/04 06:41:00+00,UTC,2024/03/04 15:02:00+00,UTC,8:21:00,3:00:00,18.4,5.0\n"
    "2,S-2,Street,2024/03/04 17:05:00+00,UTC,2024/03/05 05:30:00+00,UTC,12:25:00,3:00:00,9.9,3.0\n",
}


def read(path: Path, **said: str) -> list[Session]:
    return read_sessions(path, UTC1, Reading(**said), [])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMS)
def test_every_network_tells_the_same_sessions(name: str, tmp_path: Path) -> None:
    said = {"dundee.csv": {"dates": "dmy"}, "palo_alto.csv": {"dates": "mdy"}}.get(name, {})
    first, second = read(save(tmp_path / name, FORMS[name]), **said)
    assert str(first.plug_in) == "2024-03-04T06:41:00"
    assert str(first.plug_out) == "2024-03-04T15:02:00"
    assert str(second.plug_in) == "2024-03-04T17:05:00"
    assert str(second.plug_out) == "2024-03-05T05:30:00"
    assert (first.kwh, second.kwh) == pytest.approx((18.4, 9.9))
    assert (first.socket, second.socket) == ("S-1", "S-2")


def case_of(tmp_path: Path, sessions: str, chargers: ChargerOptions, load: bool = True) -> tuple[Path, list[str]]:
    files = Files(
        load=save(tmp_path / "load.csv", table("time,kWh", KWH)) if load else None,
        sessions=save(tmp_path / "sessions.csv", sessions),
        chargers=chargers,
        zone=None if load else "Etc/GMT-1",
    )
    settings = HOME if load else {"tariff.kind": "flat"}
    return import_case(None, None, None, 0, tmp_path / "case", settings, files=files)


def test_visits_have_the_times_and_the_energy_of_the_sessions(tmp_path: Path) -> None:
    folder, _ = case_of(tmp_path, FORMS["plain.csv"], ChargerOptions(charger_kw=11.0, vehicle_kwh=50.0))
    assert check_case(folder).errors == []
    site = read_site(folder)
    for (_, charger), rows, kwh in zip(site.sockets, [range(8, 16), range(18, 30)], [18.4, 9.9]):
        connected = np.flatnonzero(charger.vehicle >= 0)
        assert connected.tolist() == list(rows)
        assert charger.max_charging_power == 11.0
        battery = site.vehicles[charger.vehicle[rows[0]]].battery
        need = (charger.required_soc[rows[0]] - np.nanmax(charger.arrival_soc)) * battery.capacity
        assert need / (charger.efficiency * battery.efficiency**0.5) == pytest.approx(kwh, abs=0.02)


def test_types_of_vehicles_share_a_socket_and_overlaps_get_another(tmp_path: Path) -> None:
    rows = [
        "Socket,Vehicle type,Battery capacity (kWh),Plug-in,Plug-out,Energy (kWh)",
        "A,Van,75,2024-03-04 18:00,2024-03-05 06:00,30",
        "A,Truck,200,2024-03-05 08:00,2024-03-06 20:00,90",
        "A,Van,75,2024-03-05 09:00,2024-03-05 12:00,5",
    ]
    chargers = ChargerOptions(charger_kw=22.0, discharge_kw=10.0)
    folder, _ = case_of(tmp_path, "\n".join(rows), chargers, load=False)
    assert check_case(folder).errors == []
    site = read_site(folder)
    assert len(site.sockets) == 2
    assert sorted(vehicle.battery.capacity for vehicle in site.vehicles) == [75.0, 75.0, 200.0]
    assert all(charger.max_discharging_power == 10.0 for _, charger in site.sockets)
    assert site.seconds_per_time_step == 900
    stays = [int((charger.vehicle >= 0).sum()) for _, charger in site.sockets]
    assert sorted(stays) == [12, 4 * (12 + 36)]


def test_sessions_elsewhere_in_time_and_tables_without_energy_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no charging session lies between"):
        case_of(tmp_path, FORMS["plain.csv"].replace("2024-03", "2021-03"), ChargerOptions())
    with pytest.raises(UserError, match="no column holds the energy"):
        read(save(tmp_path / "no.csv", "arrival,departure\n2024-03-04 07:41,2024-03-04 16:02\n"))
    with pytest.raises(UserError, match="--unit sessions="):
        read(save(tmp_path / "no.csv", "arrival,departure,energy\n2024-03-04 07:41,2024-03-04 16:02,5000\n"))
    with pytest.raises(UserError, match="is not JSON"):
        read(save(tmp_path / "no.json", "{"))
